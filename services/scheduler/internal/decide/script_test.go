package decide_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestScripts runs testdata: one file a rule. The first line of a block and each line below it is a command:
//
//	cluster [machine-network=CIDR] [machine-network6=CIDR] [history=N] [preemption=on]
//	node ID [cpus=N] [memory=SIZE] [disk=SIZE] [platform=os/arch] | node ID down|ready|suspect|drain|pause|active|remove
//	node ID dispatcher=ID; dispatcher ID applied=now
//	network ID subnet=CIDR
//	service NAME [replicas=N] [restart-delay=D] [condition=C] [attempts=N] [window=D] [memory=SIZE] [cpus=N]
//	        [platform=os/arch] [networks=ID] [parallelism=N] [order=start-first] [delay=D]; again: an update
//	        [max-delay=D] [label.KEY=V] [mode=global|job|global-job] [completions=N] [concurrent=N] [job-deadline=D]
//	        [cron=FIELDS_WITH_UNDERSCORES] [zone=Z] [policy=allow|replace] [catch-up=D] [constraint=A+B] [prefer=KEY+KEY]
//	        [max-replicas=N] [strategy=binpack] [tolerate=KEY] [near=S] [far=S] [rather-near=S] [rather-far=S]
//	        [generic=KIND:N] [pids=N] [disk=SIZE] [limit-memory=SIZE] [host-port=N+any] [publish=N] [monitor=D] [action=continue|rollback]
//	        [ratio=F] [progress=D]
//	        [depends-on=A+B] [max-unavailable=N] [hold=true] [resume=N] [priority=N]
//	        [rollback-parallelism=N [rollback-order=start-first] [rollback-delay=D] [rollback-action=continue]]
//	        [rollback-to=VERSION: by hand; the other options of the task spec are those of then]
//	        [rebalance=always]
//	node … [label.KEY=V] [engine.KEY=V] [taint=KEY:VALUE:no-schedule|avoid|no-execute] [generic=gpu:a+b or gpu:N] [role=manager]
//	        [hostname=NAME] [ip=A] [pids=N] [stamp=true: down and ready carry the time]
//	service … [slot-volume=A+B]    give-up VOLUME: a person removes it
//	rebalance NAME=N[@NODE]: a request
//	service … [min=N] [max=N] [cpu-target=PERCENT] [memory-target=PERCENT or SIZE] [up=D] [down=D] [step=N] [limit-cpus=N]
//	load NAME [tasks=N] [cpu=N] [memory=SIZE] [dispatcher=ID]   what its tasks use together; without tasks: nothing is told
//	scale NAME=N    remove NAME
//	scheduler NAME leads|thinks|commits   another scheduler takes the lead, makes a plan, commits it later
//	observe NAME.SLOT[~N back] STATE [exit=N] [at=D] [message]
//	settle [at=D]   agents do what is desired
//	decide [at=D]   prints what the plan does
//	converge [until=D] decide and settle until nothing changes
//	ps NAME         prints the tasks, newest first; ls NAME how many run of those that are wanted
//	explain NAME [task=SLOT] [nodes=true] says why tasks are where they are
//	plan COMMAND    prints what a command would lead to, without it; also: plan node ID off
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		m := newSim(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			m.fault = func(format string, args ...any) { d.Fatalf(t, format, args...) }
			var out strings.Builder
			words := []string{d.Cmd}
			for _, a := range d.CmdArgs {
				words = append(words, a.String())
			}
			m.command(&out, words)
			for line := range strings.Lines(d.Input) {
				if words := strings.Fields(line); len(words) > 0 {
					m.command(&out, words)
				}
			}
			return out.String()
		})
	})
}

// options splits words into name=value pairs and the rest.
func options(words []string) (opts map[string]string, rest []string) {
	opts = map[string]string{}
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok {
			opts[k] = v
		} else {
			rest = append(rest, w)
		}
	}
	return opts, rest
}

func (m *sim) command(out *strings.Builder, words []string) {
	opts, rest := options(words[1:])
	if at, ok := opts["at"]; ok {
		m.now = start().Add(m.duration(at))
	}
	switch words[0] {
	case "plan":
		m.foresee(out, words[1:])
	case "explain":
		m.explain(out, rest, opts)
	case "cluster":
		m.change(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "cluster"},
			Spec:     &typesv1.ClusterSpec{TaskHistoryLimit: int32(m.number(opts["history"], 5)), Scheduling: &typesv1.SchedulingConfig{Preemption: opts["preemption"] == "on"}},
			DataPath: &typesv1.DataPath{MachineNetwork: opts["machine-network"], MachineNetwork6: opts["machine-network6"]}}))
	case "node":
		m.node(rest, opts)
	case "dispatcher":
		m.change(state.Wrap(&typesv1.Member{Meta: &typesv1.Meta{Id: "dispatcher/" + rest[0]},
			AppliedRevision: m.s.Version().Revision}))
	case "network":
		m.change(state.Wrap(&typesv1.Network{Meta: &typesv1.Meta{Id: rest[0]},
			Spec: &typesv1.NetworkSpec{Annotations: &typesv1.Annotations{Name: rest[0]}},
			Ipam: &typesv1.NetworkIPAM{Subnets: strings.Split(opts["subnet"], "+"), Ranges: plusList(opts["range"]), Reserved: plusList(opts["reserved"])}}))
	case "service":
		m.service(rest[0], opts)
	case "scale":
		for name, n := range opts {
			s := proto.CloneOf(m.s.Service(name))
			s.Spec.Mode = replicas(uint64(m.number(n, 0)))
			m.change(state.Wrap(s))
		}
	case "rebalance":
		for name, text := range opts {
			request, node, _ := strings.Cut(text, "@")
			s := proto.CloneOf(m.s.Service(name))
			s.Spec.Rebalance = &typesv1.Rebalance{Always: s.GetSpec().GetRebalance().GetAlways(), Request: uint64(m.number(request, 0)), RequestNodeId: node}
			m.change(state.Wrap(s))
		}
	case "load":
		m.load(rest[0], opts)
	case "give-up":
		m.delete(typesv1.Kind_KIND_VOLUME, rest[0])
	case "scheduler":
		m.other(out, rest[0], rest[1])
	case "remove":
		m.delete(typesv1.Kind_KIND_SERVICE, rest[0])
	case "observe":
		m.observeCommand(rest, opts)
	case "settle":
		m.settle()
	case "decide":
		lines, wake := m.decide()
		m.print(out, lines, wake)
	case "converge":
		limit := m.now
		if u, ok := opts["until"]; ok {
			limit = start().Add(m.duration(u))
		}
		m.print(out, m.converge(limit), time.Time{})
	case "ps":
		m.ps(out, rest[0])
	case "ls":
		running, wanted := state.Counts(m.s, rest[0])
		fmt.Fprintf(out, "%s %d/%d\n", rest[0], running, wanted)
	default:
		m.fault("no command %q", words[0])
	}
}

func (m *sim) print(out *strings.Builder, lines []string, wake time.Time) {
	for _, l := range lines {
		fmt.Fprintln(out, l)
	}
	if !wake.IsZero() {
		fmt.Fprintf(out, "wake at=%s\n", wake.Sub(start()))
	} else if len(lines) == 0 {
		fmt.Fprintln(out, "nothing to do")
	}
}

func (m *sim) ps(out *strings.Builder, service string) {
	tasks := slices.Collect(m.s.TasksOfService(service))
	slices.SortFunc(tasks, func(a, b *typesv1.Task) int {
		return cmp.Or(cmp.Compare(a.GetDecided().GetIteration(), b.GetDecided().GetIteration()), cmp.Compare(a.GetDecided().GetSlot(), b.GetDecided().GetSlot()),
			cmp.Compare(a.GetDecided().GetForNode(), b.GetDecided().GetForNode()), cmp.Compare(b.GetMeta().GetId(), a.GetMeta().GetId()))
	})
	for _, t := range tasks {
		n := m.s.Node(t.GetDecided().GetNodeId())
		fmt.Fprintf(out, "%s node=%s desired=%s state=%s reason=%q\n", m.taskName(t), t.GetDecided().GetNodeId(),
			word(t.GetDecided().GetDesired()), word(state.TaskState(t, n)), state.TaskReason(t, n))
	}
}

func word(s typesv1.TaskState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "TASK_STATE_"))
}

// nodeOptions sets what a machine has and a person says of it.
func (m *sim) nodeOptions(n *typesv1.Node, opts map[string]string) {
	d := n.GetStatus().GetDescription()
	for k, v := range opts {
		if label, ok := strings.CutPrefix(k, "label."); ok {
			if n.Spec.Annotations == nil {
				n.Spec.Annotations = &typesv1.Annotations{}
			}
			n.Spec.Annotations.Labels = with(n.GetSpec().GetAnnotations().GetLabels(), label, v)
		}
		if label, ok := strings.CutPrefix(k, "engine."); ok {
			d.Labels = with(d.GetLabels(), label, v)
		}
	}
	if t, ok := opts["taint"]; ok {
		n.Spec.Taints = nil
		if parts := strings.Split(t, ":"); len(parts) == 3 {
			n.Spec.Taints = []*typesv1.Taint{{Key: parts[0], Value: parts[1], Effect: map[string]typesv1.TaintEffect{
				"no-schedule": typesv1.TaintEffect_TAINT_EFFECT_NO_SCHEDULE, "avoid": typesv1.TaintEffect_TAINT_EFFECT_PREFER_NO_SCHEDULE,
				"no-execute": typesv1.TaintEffect_TAINT_EFFECT_NO_EXECUTE}[parts[2]]}}
		}
	}
	if g, ok := opts["generic"]; ok {
		d.Generic = m.generic(g)
	}
	if mem, ok := opts["memory"]; ok {
		d.MemoryBytes = m.size(mem)
	}
	if cpus, ok := opts["cpus"]; ok {
		d.NanoCpus = m.nano(cpus)
	}
	if disk, ok := opts["disk"]; ok {
		d.DiskBytes = m.size(disk)
	}
	if opts["role"] == "manager" {
		n.Spec.Role = typesv1.NodeRole_NODE_ROLE_MANAGER
	}
	if name, ok := opts["hostname"]; ok {
		d.Hostname = name
	}
	if ip, ok := opts["ip"]; ok {
		n.Status.Addresses = []string{ip}
	}
	if p, ok := opts["pids"]; ok {
		d.Pids = m.number(p, 0)
	}
	if opts["stamp"] != "" {
		n.Status.Since = timestamppb.New(m.now)
	}
}

func with(labels map[string]string, k, v string) map[string]string {
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]string{}
	}
	if labels[k] = v; v == "" {
		delete(labels, k)
	}
	return labels
}

// generic reads "gpu:2" and "gpu:a+b".
func (m *sim) generic(text string) (out []*typesv1.GenericResource) {
	kind, list, _ := strings.Cut(text, ":")
	for _, v := range strings.Split(list, "+") {
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			out = append(out, &typesv1.GenericResource{Kind: kind, Discrete: n})
		} else {
			out = append(out, &typesv1.GenericResource{Kind: kind, Named: v})
		}
	}
	return out
}

func (m *sim) node(rest []string, opts map[string]string) {
	n := proto.CloneOf(m.s.Node(rest[0]))
	if n == nil {
		os, arch, _ := strings.Cut(cmpOr(opts["platform"], "linux/amd64"), "/")
		n = &typesv1.Node{Meta: &typesv1.Meta{Id: rest[0]},
			Spec: &typesv1.NodeSpec{Availability: typesv1.Availability_AVAILABILITY_ACTIVE},
			Status: &typesv1.NodeStatus{State: typesv1.NodeState_NODE_STATE_READY, Description: &typesv1.NodeDescription{
				Platform: &typesv1.Platform{Os: os, Architecture: arch},
				NanoCpus: m.nano(cmpOr(opts["cpus"], "4")), MemoryBytes: m.size(cmpOr(opts["memory"], "8G"))}}}
	}
	m.nodeOptions(n, opts)
	if d, ok := opts["dispatcher"]; ok {
		n.Status.Session = &typesv1.NodeSession{DispatcherId: d}
	}
	for _, verb := range rest[1:] {
		switch verb {
		case "down":
			n.Status.State = typesv1.NodeState_NODE_STATE_DOWN
		case "suspect":
			n.Status.State = typesv1.NodeState_NODE_STATE_SUSPECT
		case "ready":
			n.Status.State = typesv1.NodeState_NODE_STATE_READY
		case "drain":
			n.Spec.Availability = typesv1.Availability_AVAILABILITY_DRAIN
		case "pause":
			n.Spec.Availability = typesv1.Availability_AVAILABILITY_PAUSE
		case "active":
			n.Spec.Availability = typesv1.Availability_AVAILABILITY_ACTIVE
		case "remove":
			m.delete(typesv1.Kind_KIND_NODE, rest[0])
			return
		default:
			m.fault("no node verb %q", verb)
		}
	}
	m.change(state.Wrap(n))
}

func replicas(n uint64) *typesv1.ServiceSpec_Replicated {
	return &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: &n}}
}

func (m *sim) service(name string, opts map[string]string) {
	task := &typesv1.TaskSpec{
		Restart: &typesv1.RestartPolicy{
			Condition: map[string]typesv1.RestartCondition{
				"none": typesv1.RestartCondition_RESTART_CONDITION_NONE, "on-failure": typesv1.RestartCondition_RESTART_CONDITION_ON_FAILURE,
			}[opts["condition"]],
			MaxAttempts: uint64(m.number(opts["attempts"], 0)),
			Window:      durationpb.New(m.duration(cmpOr(opts["window"], "0s"))),
		},
		Resources: &typesv1.ResourceRequirements{Reservations: &typesv1.Resources{
			NanoCpus: m.nano(cmpOr(opts["cpus"], "0")), MemoryBytes: m.size(cmpOr(opts["memory"], "0"))}},
	}
	if d, ok := opts["restart-delay"]; ok {
		task.Restart.Delay = durationpb.New(m.duration(d))
	}
	if os, arch, ok := strings.Cut(opts["platform"], "/"); ok {
		task.Placement = &typesv1.Placement{Platforms: []*typesv1.Platform{{Os: os, Architecture: arch}}}
	}
	if n := opts["networks"]; n != "" {
		task.Networks = append(task.Networks, &typesv1.NetworkAttachment{Target: n})
	}
	update := &typesv1.UpdateConfig{Delay: durationpb.New(m.duration(cmpOr(opts["delay"], "0s")))}
	if p, ok := opts["parallelism"]; ok {
		update.Parallelism = proto.Uint64(uint64(m.number(p, 1)))
	}
	if opts["order"] == "start-first" {
		update.Order = typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST
	}
	m.updateOptions(update, opts)
	m.taskOptions(task, opts)
	s := &typesv1.Service{Meta: &typesv1.Meta{Id: name}, SpecVersion: 1, SpecHash: []byte("1"), Spec: &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: cmpOr(opts["name"], name)}, Task: task, Update: update,
		Mode: replicas(uint64(m.number(opts["replicas"], 1)))}}
	m.serviceOptions(s, opts)
	if old := m.s.Service(name); old != nil { // an update: the replicas stay unless they are named
		s.Meta, s.UpdateStatus, s.SpecVersion = proto.CloneOf(old.GetMeta()), old.GetUpdateStatus(), old.GetSpecVersion()+1
		s.SpecHash = fmt.Append(nil, s.GetSpecVersion())
		s.SpecHistory = append([]*typesv1.SpecRecord{{Version: old.GetSpecVersion(), Hash: old.GetSpecHash(), Task: old.GetSpec().GetTask()}}, old.GetSpecHistory()...)
		m.backTo(s, uint64(m.number(opts["rollback-to"], 0)))
		s.RebalanceStatus = old.GetRebalanceStatus()
		s.JobStatus, s.DependencyStatus, s.Scale = old.GetJobStatus(), old.GetDependencyStatus(), old.GetScale()
		if opts["same-spec"] != "" {
			s.SpecVersion, s.SpecHash, s.SpecHistory, s.Spec.Task = old.GetSpecVersion(), old.GetSpecHash(), old.GetSpecHistory(), old.GetSpec().GetTask()
			s.RolledBackTo = old.GetRolledBackTo()
		}
		if _, ok := opts["replicas"]; !ok && opts["mode"] == "" {
			s.Spec.Mode = replicas(state.Replicas(old))
		}
	}
	m.change(state.Wrap(s))
}

// backTo is what the store makes of a rollback by hand.
func (m *sim) backTo(s *typesv1.Service, version uint64) {
	for _, r := range s.GetSpecHistory() {
		if r.GetVersion() == version {
			s.SpecHash, s.Spec.Task, s.RolledBackTo = r.GetHash(), r.GetTask(), version
		}
	}
}

func (m *sim) updateOptions(u *typesv1.UpdateConfig, opts map[string]string) {
	if d, ok := opts["monitor"]; ok {
		u.Monitor = durationpb.New(m.duration(d))
	}
	if d, ok := opts["progress"]; ok {
		u.ProgressDeadline = durationpb.New(m.duration(d))
	}
	u.FailureAction = map[string]typesv1.FailureAction{"continue": typesv1.FailureAction_FAILURE_ACTION_CONTINUE,
		"rollback": typesv1.FailureAction_FAILURE_ACTION_ROLLBACK}[opts["action"]]
	if r, ok := opts["ratio"]; ok {
		f, err := strconv.ParseFloat(r, 32)
		if err != nil {
			m.fault("%v", err)
		}
		u.MaxFailureRatio = float32(f)
	}
}

func (m *sim) taskOptions(t *typesv1.TaskSpec, opts map[string]string) {
	if t.Placement == nil {
		t.Placement = &typesv1.Placement{}
	}
	p := t.GetPlacement()
	if c, ok := opts["constraint"]; ok {
		p.Constraints = strings.Split(strings.ReplaceAll(c, "_", " "), "+")
	}
	if c, ok := opts["prefer"]; ok {
		for _, key := range strings.Split(c, "+") {
			p.Preferences = append(p.Preferences, &typesv1.PlacementPreference{Spread: key})
		}
	}
	p.MaxReplicas = uint64(m.number(opts["max-replicas"], 0))
	if opts["strategy"] == "binpack" {
		p.Strategy = typesv1.PlacementStrategy_PLACEMENT_STRATEGY_BINPACK
	}
	if k, ok := opts["tolerate"]; ok {
		p.Tolerations = []*typesv1.Toleration{{Key: k}}
	}
	for _, a := range []struct {
		option          string
		anti, preferred bool
	}{{"near", false, false}, {"far", true, false}, {"rather-near", false, true}, {"rather-far", true, true}} {
		if of, ok := opts[a.option]; ok {
			what, topology, _ := strings.Cut(of, "@")
			x := &typesv1.Affinity{Service: what, Anti: a.anti, Preferred: a.preferred, Topology: topology}
			if label, ok := strings.CutPrefix(what, "label:"); ok {
				x.Service, x.Label = "", strings.ReplaceAll(label, ":", "=")
			}
			p.Affinities = append(p.Affinities, x)
		}
	}
	if g, ok := opts["generic"]; ok {
		t.Resources.Reservations.Generic = m.generic(g)
	}
	t.Resources.Reservations.Pids, t.Resources.Reservations.DiskBytes = m.number(opts["pids"], 0), m.size(cmpOr(opts["disk"], "0"))
	if mem, ok := opts["limit-memory"]; ok {
		t.Resources.Limits = &typesv1.Resources{MemoryBytes: m.size(mem)}
	}
	if d, ok := opts["max-delay"]; ok {
		t.Restart.MaxDelay = durationpb.New(m.duration(d))
	}
	t.Container = &typesv1.ContainerSpec{Image: opts["image"]}
	for _, source := range plusList(opts["slot-volume"]) {
		t.Container.Mounts = append(t.Container.Mounts, &typesv1.Mount{Type: typesv1.MountType_MOUNT_TYPE_VOLUME, Source: source, Target: "/" + source,
			Volume: &typesv1.VolumeOptions{Scope: typesv1.VolumeScope_VOLUME_SCOPE_SLOT}})
	}
}

func (m *sim) serviceOptions(s *typesv1.Service, opts map[string]string) {
	for k, v := range opts {
		if label, ok := strings.CutPrefix(k, "label."); ok {
			s.Spec.Annotations.Labels = with(s.GetSpec().GetAnnotations().GetLabels(), label, v)
		}
	}
	switch opts["mode"] {
	case "global":
		s.Spec.Mode = &typesv1.ServiceSpec_Global{Global: &typesv1.Global{}}
	case "job":
		j := &typesv1.ReplicatedJob{TotalCompletions: proto.Uint64(uint64(m.number(opts["completions"], 1)))}
		if c, ok := opts["concurrent"]; ok {
			j.MaxConcurrent = proto.Uint64(uint64(m.number(c, 1)))
		}
		s.Spec.Mode, s.Spec.Update = &typesv1.ServiceSpec_ReplicatedJob{ReplicatedJob: j}, nil
	case "global-job":
		s.Spec.Mode, s.Spec.Update = &typesv1.ServiceSpec_GlobalJob{GlobalJob: &typesv1.GlobalJob{}}, nil
	}
	if strings.HasSuffix(opts["mode"], "job") {
		s.Spec.Job = &typesv1.JobConfig{Deadline: durationpb.New(m.duration(cmpOr(opts["job-deadline"], "0s")))}
		if c, ok := opts["cron"]; ok {
			s.Spec.Job.Schedule = &typesv1.Schedule{Cron: strings.ReplaceAll(c, "_", " "), TimeZone: opts["zone"],
				CatchUp: durationpb.New(m.duration(cmpOr(opts["catch-up"], "0s"))), Concurrency: map[string]typesv1.ConcurrencyPolicy{
					"allow":   typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_ALLOW,
					"replace": typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_REPLACE}[opts["policy"]]}
		}
	}
	if n, ok := opts["max-unavailable"]; ok {
		s.Spec.MaxUnavailable = proto.Uint64(uint64(m.number(n, 1)))
	}
	s.Spec.HoldUpdate, s.Spec.ResumeUpdate = opts["hold"] != "", uint64(m.number(opts["resume"], 0))
	m.autoscale(s, opts)
	s.Spec.Priority = int32(m.number(opts["priority"], 0))
	if n, ok := opts["rollback-parallelism"]; ok {
		s.Spec.Rollback = &typesv1.UpdateConfig{Parallelism: proto.Uint64(uint64(m.number(n, 1))), Monitor: s.GetSpec().GetUpdate().GetMonitor(),
			Delay: durationpb.New(m.duration(cmpOr(opts["rollback-delay"], "0s")))}
		if opts["rollback-order"] == "start-first" {
			s.Spec.Rollback.Order = typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST
		}
		if opts["rollback-action"] == "continue" {
			s.Spec.Rollback.FailureAction = typesv1.FailureAction_FAILURE_ACTION_CONTINUE
		}
	}
	if text, ok := opts["rebalance"]; ok {
		s.Spec.Rebalance = &typesv1.Rebalance{Always: text == "always"}
	}
	if on := opts["depends-on"]; on != "" {
		s.Spec.DependsOn = strings.Split(on, "+")
	}
	for _, p := range strings.FieldsFunc(opts["host-port"], func(r rune) bool { return r == '+' }) {
		if s.Endpoint == nil {
			s.Endpoint = &typesv1.Endpoint{}
		}
		c := &typesv1.PortConfig{Protocol: typesv1.Protocol_PROTOCOL_TCP, TargetPort: 80, PublishMode: typesv1.PublishMode_PUBLISH_MODE_HOST}
		if p != "any" {
			c.PublishedPort = uint32(m.number(p, 0))
		}
		s.Endpoint.Ports = append(s.Endpoint.Ports, c)
	}
	if p, ok := opts["publish"]; ok {
		s.Endpoint = &typesv1.Endpoint{Ports: []*typesv1.PortConfig{{Protocol: typesv1.Protocol_PROTOCOL_TCP, TargetPort: 80, PublishedPort: uint32(m.number(p, 0))}}}
	}
}

func (m *sim) observeCommand(rest []string, opts map[string]string) {
	name, back, _ := strings.Cut(rest[0], "~")
	service, _, _ := strings.Cut(name, ".")
	service, _, _ = strings.Cut(service, "@")
	tasks := slices.Collect(m.s.TasksOfService(service))
	tasks = slices.DeleteFunc(tasks, func(t *typesv1.Task) bool { return m.taskName(t) != name })
	slices.SortFunc(tasks, func(a, b *typesv1.Task) int { return strings.Compare(b.GetMeta().GetId(), a.GetMeta().GetId()) })
	i := int(m.number(back, 0))
	if i >= len(tasks) {
		m.fault("slot %s has %d tasks", name, len(tasks))
	}
	var exit *int32
	if e, ok := opts["exit"]; ok {
		exit = proto.Int32(int32(m.number(e, 0)))
	}
	m.observe(tasks[i], typesv1.TaskState(typesv1.TaskState_value["TASK_STATE_"+strings.ToUpper(rest[1])]), exit, strings.Join(rest[2:], " "))
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (m *sim) number(text string, otherwise int64) int64 {
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		m.fault("%v", err)
	}
	return n
}

func (m *sim) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		m.fault("%v", err)
	}
	return d
}

func (m *sim) nano(text string) int64 {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		m.fault("%v", err)
	}
	return int64(f * 1e9)
}

func (m *sim) size(text string) int64 {
	shift := 0
	switch {
	case strings.HasSuffix(text, "G"):
		shift = 30
	case strings.HasSuffix(text, "M"):
		shift = 20
	}
	return m.number(strings.TrimRight(text, "GM"), 0) << shift
}

// plusList is separated by a plus sign.
func plusList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '+' })
}
