// Package spec turns a command line's flags into a service's spec, and changes a spec as flags say.
//
// It owns the syntax alone (`8080:80/tcp`, `a=b`, `512m`, `1.5`): what a port or a name may be is the store's to say, so
// that every client hears the same. Faults of syntax are told all at once. A Flags belongs to one command.
package spec

import (
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// Flags are a service's settings on a command line.
type Flags struct {
	set      *pflag.FlagSet
	getenv   func(string) string
	readFile func(string) ([]byte, error)
	faults   errs.Collector
}

// New defines no flag yet; getenv gives values to `--env NAME`, readFile reads the files that flags name.
func New(set *pflag.FlagSet, getenv func(string) string, readFile func(string) ([]byte, error)) *Flags {
	return &Flags{set: set, getenv: getenv, readFile: readFile}
}

// Create defines the flags of `service create`.
func (f *Flags) Create() {
	f.set.String("name", "", "name of the service (required)")
	f.set.String("mode", "replicated", "how many tasks: replicated, global, replicated-job or global-job")
	f.set.StringArrayP("publish", "p", nil, "publish a port: [PUBLISHED:]TARGET[/tcp|udp|sctp], or published=…,target=…[,protocol=…][,policy=cluster|local|prefer-local][,affinity=client-ip][,host-ip=ADDRESS|CIDR][,dataplane=kernel|userspace][,proxy-protocol=v2]")
	f.set.StringArray("network", nil, "put tasks on a network: NAME, or name=…,alias=…,ip=… (again for each slot),ip6=…")
	f.set.StringArrayP("env", "e", nil, "set an environment variable: NAME=value, or NAME for this shell's value")
	f.set.StringArrayP("label", "l", nil, "label the service: key=value")
	f.set.StringArray("container-label", nil, "label the containers: key=value")
	f.set.StringArray("env-file", nil, "read environment variables from a file, one NAME=value a line")
	f.lists(false)
	f.files(false)
	f.dependencies(false)
	f.callers(false)
	f.containerLists(false)
	f.common()
}

// Update defines the flags of `service update`.
func (f *Flags) Update() {
	f.set.String("image", "", "image to run")
	f.set.String("args", "", "arguments of the command")
	f.set.Bool("force", false, "make new tasks although nothing else changes")
	f.set.StringArray("publish-add", nil, "add or replace a published port, as --publish of create")
	f.set.StringArray("publish-rm", nil, "remove a published port by its target port: TARGET[/tcp|udp|sctp]")
	f.set.StringArray("network-add", nil, "add a network")
	f.set.StringArray("network-rm", nil, "remove a network")
	f.set.StringArray("env-add", nil, "add or replace an environment variable")
	f.set.StringArray("env-rm", nil, "remove an environment variable")
	f.set.StringArray("label-add", nil, "add or replace a label of the service")
	f.set.StringArray("label-rm", nil, "remove a label of the service")
	f.set.StringArray("container-label-add", nil, "add or replace a label of the containers")
	f.set.StringArray("container-label-rm", nil, "remove a label of the containers")
	f.set.Bool("autoscale-off", false, "let the number of tasks follow their load no more; it stays as it is")
	f.set.Bool("hold", false, "hold the update where it is; --hold=false lets it go on")
	f.set.Bool("resume", false, "go on with an update that has paused")
	f.lists(true)
	f.files(true)
	f.dependencies(true)
	f.callers(true)
	f.containerLists(true)
	f.common()
}

// common are the flags that create and update share. They are texts, so that all faults can be told at once.
func (f *Flags) common() {
	f.set.String("replicas", "", "number of tasks; of a replicated job: completions")
	f.set.String("limit-cpu", "", "processors that a task may use: 1.5")
	f.set.String("limit-memory", "", "memory that a task may use: 512m, 2g")
	f.set.String("limit-pids", "", "processes that a task may have; 0: no limit")
	f.set.String("reserve-cpu", "", "processors that a node must have free")
	f.set.String("reserve-memory", "", "memory that a node must have free")
	f.set.String("reserve-disk", "", "disk that a node must have free: 10g")
	f.set.String("restart-condition", "", "when to replace a task that ended: none, on-failure, any (default any)")
	f.set.String("restart-delay", "", "wait before the replacement starts (default 5s)")
	f.set.String("restart-max-attempts", "", "replacements within the window; 0: no limit")
	f.set.String("restart-window", "", "window in which attempts count; 0: for ever")
	f.set.String("restart-max-delay", "", "let the wait double with each failure in a row, up to this; 0: it stays as it is")
	f.set.String("priority", "", "class of importance, -1000 to 1000: higher ones are placed first (default 0)")
	f.autoscale()
	f.rollout()
	f.jobs()
	f.placement()
	f.container()
	f.set.String("stop-grace-period", "", "time from the stop signal to SIGKILL (default 10s)")
	f.set.String("stop-signal", "", "signal that asks a container to stop")
	f.set.String("hostname", "", "hostname of the containers")
	f.set.StringP("user", "u", "", "user: name or uid[:gid]")
	f.set.StringP("workdir", "w", "", "working directory")
	f.set.String("entrypoint", "", "replaces the image's entry point")
	f.set.String("endpoint-mode", "", "what its name leads to: vip (one address that tasks take turns behind) or dnsrr (the tasks' addresses) (default vip)")
	f.set.Bool("read-only", false, "mount the root file system read-only")
}

// Spec is the spec of a new service.
func (f *Flags) Spec(image string, args []string) (*typesv1.ServiceSpec, error) {
	s := &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: f.text("name")},
		Task:        &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: image, Args: args}},
	}
	if s.Annotations.Name == "" {
		f.faults.Add("name", "is missing: give the service one with --name")
	}
	f.createMode(s)
	for _, p := range f.list("publish") {
		ports, err := ParsePorts(p)
		if err != nil {
			f.faults.Merge("publish", err)
			continue
		}
		if s.Endpoint == nil {
			s.Endpoint = &typesv1.EndpointSpec{}
		}
		s.Endpoint.Ports = append(s.Endpoint.Ports, ports...)
	}
	for _, n := range f.list("network") {
		if n == hostNetwork {
			f.shareNetwork(s.Task, true)
			continue
		}
		if a := f.network("network", n); a != nil {
			s.Task.Networks = append(s.Task.Networks, a)
		}
	}
	s.Task.Container.Env = f.environment("env", f.envFiles())
	s.Annotations.Labels = f.labels("label", nil)
	s.Task.Container.Labels = f.labels("container-label", nil)
	f.addRules(s.Task, "")
	f.addFiles(s.Task.Container)
	f.addDependencies(s)
	f.applyCallers(s)
	f.addContainerLists(s.Task.Container, "")
	f.apply(s)
	what := "create service"
	if s.Annotations.Name != "" {
		what += ` "` + s.Annotations.Name + `"`
	}
	return s, f.faults.Err(what)
}

// apply changes what the common flags say, and leaves the rest.
func (f *Flags) apply(s *typesv1.ServiceSpec) {
	f.applyMode(s)
	if f.set.Changed("priority") {
		n, err := strconv.ParseInt(f.text("priority"), 10, 32)
		f.faults.Check(err == nil, "priority", "%q is no whole number", f.text("priority"))
		s.Priority = int32(n)
	}
	c := s.Task.Container
	for name, field := range map[string]*string{
		"stop-signal": &c.StopSignal, "hostname": &c.Hostname, "user": &c.User, "workdir": &c.Dir,
	} {
		if f.set.Changed(name) {
			*field = f.text(name)
		}
	}
	f.duration("stop-grace-period", func(d *durationpb.Duration) { c.StopGracePeriod = d })
	if f.set.Changed("entrypoint") {
		c.Command = f.words("entrypoint")
	}
	if f.set.Changed("read-only") {
		c.ReadOnly, _ = f.set.GetBool("read-only")
	}
	f.applyContainer(s.Task)
	f.applyResources(s.Task)
	f.applyRestart(s.Task)
	f.applyPlacement(s.Task)
	f.applyAutoscale(s)
	f.applyRollout(s)
	f.applyEndpoint(s)
	f.applyJob(s)
}

func (f *Flags) applyResources(t *typesv1.TaskSpec) {
	if !f.any("limit-cpu", "limit-memory", "limit-pids", "reserve-cpu", "reserve-memory", "reserve-disk") {
		return
	}
	if t.Resources == nil {
		t.Resources = &typesv1.ResourceRequirements{}
	}
	for i, r := range []**typesv1.Resources{&t.Resources.Limits, &t.Resources.Reservations} {
		prefix := []string{"limit", "reserve"}[i]
		if *r == nil && f.any(prefix+"-cpu", prefix+"-memory", prefix+"-pids", prefix+"-disk") {
			*r = &typesv1.Resources{}
		}
		if f.set.Changed(prefix + "-cpu") {
			cpus, err := strconv.ParseFloat(f.text(prefix+"-cpu"), 64)
			f.faults.Check(err == nil && cpus >= 0 && cpus < 1e6, prefix+"-cpu", "%q is no number of processors, such as 0.5", f.text(prefix+"-cpu"))
			(*r).NanoCpus = int64(cpus * 1e9)
		}
		if f.set.Changed(prefix + "-memory") {
			bytes, err := units.RAMInBytes(f.text(prefix + "-memory"))
			f.faults.Check(err == nil, prefix+"-memory", "%q is no amount of memory, such as 512m", f.text(prefix+"-memory"))
			(*r).MemoryBytes = bytes
		}
		if f.set.Changed(prefix + "-disk") {
			bytes, err := units.RAMInBytes(f.text(prefix + "-disk"))
			f.faults.Check(err == nil, prefix+"-disk", "%q is no amount of disk, such as 10g", f.text(prefix+"-disk"))
			(*r).DiskBytes = bytes
		}
		if f.set.Changed(prefix + "-pids") {
			n, _ := f.count(prefix + "-pids")
			(*r).Pids = int64(n)
		}
	}
}

func (f *Flags) applyRestart(t *typesv1.TaskSpec) {
	if !f.any("restart-condition", "restart-delay", "restart-max-attempts", "restart-window", "restart-max-delay") {
		return
	}
	if t.Restart == nil {
		t.Restart = &typesv1.RestartPolicy{}
	}
	if f.set.Changed("restart-condition") {
		t.Restart.Condition = choice(f, "restart-condition", []string{"none", "on-failure", "any"}, map[string]typesv1.RestartCondition{
			"none": typesv1.RestartCondition_RESTART_CONDITION_NONE, "any": typesv1.RestartCondition_RESTART_CONDITION_ANY,
			"on-failure": typesv1.RestartCondition_RESTART_CONDITION_ON_FAILURE,
		})
	}
	f.duration("restart-delay", func(d *durationpb.Duration) { t.Restart.Delay = d })
	f.duration("restart-max-delay", func(d *durationpb.Duration) { t.Restart.MaxDelay = d })
	f.duration("restart-window", func(d *durationpb.Duration) { t.Restart.Window = d })
	if f.set.Changed("restart-max-attempts") {
		t.Restart.MaxAttempts, _ = f.count("restart-max-attempts")
	}
}

func (f *Flags) text(name string) string {
	v, _ := f.set.GetString(name) // an undefined flag has no value
	return v
}

func (f *Flags) list(name string) []string {
	v, _ := f.set.GetStringArray(name)
	return v
}

func (f *Flags) any(names ...string) bool {
	for _, n := range names {
		if f.set.Changed(n) {
			return true
		}
	}
	return false
}

// count is a number that is not negative.
func (f *Flags) count(name string) (uint64, bool) {
	n, err := ParseCount(f.text(name))
	f.faults.Merge(name, err)
	return n, err == nil
}

// ParseCount reads a number of things.
func ParseCount(text string) (uint64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil:
		return 0, errs.New(errs.Invalid, "%q is no whole number", text)
	case n < 0:
		return 0, errs.New(errs.Invalid, "%d is below 0", n)
	}
	return uint64(n), nil
}

func (f *Flags) duration(name string, set func(*durationpb.Duration)) {
	if !f.set.Changed(name) {
		return
	}
	d, err := time.ParseDuration(f.text(name))
	if err != nil || d < 0 {
		f.faults.Add(name, "%q is no duration, such as 500ms, 10s or 2m", f.text(name))
		return
	}
	set(durationpb.New(d))
}

// choice is the value of one of a few words.
func choice[E any](f *Flags, flag string, words []string, values map[string]E) E {
	v, ok := values[f.text(flag)]
	last := len(words) - 1
	f.faults.Check(ok, flag, "%q is not %s or %s", f.text(flag), strings.Join(words[:last], ", "), words[last])
	return v
}

func (f *Flags) words(name string) []string {
	words, err := Words(f.text(name))
	f.faults.Merge(name, err)
	return words
}
