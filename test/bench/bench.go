package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/test/harness"
	"github.com/shoalproject/shoal/test/harness/hollow"
)

// config says what is measured.
type config struct {
	Runs      int
	FaultRuns int
	Replicas  int
	Only      string
	Dir       string
	Root      string
	Figures   string
	Peers     bool
	Hollow    int

	only *regexp.Regexp
}

func defaultConfig() config {
	return config{Runs: 5, FaultRuns: 3, Replicas: 50, Hollow: 5000, Dir: "/var/tmp/shoal-bench", Root: ".."}
}

func (c *config) validate() error {
	var faults []error
	if c.Runs < 1 || c.FaultRuns < 1 {
		faults = append(faults, errors.New("-runs and -fault-runs must be 1 or more"))
	}
	if c.Replicas < 2 || c.Replicas > 200 {
		faults = append(faults, fmt.Errorf("-replicas: %d is not in 2 to 200", c.Replicas))
	}
	if c.Hollow < 100 || c.Hollow > hollow.Most {
		faults = append(faults, fmt.Errorf("-hollow: %d is not in 100 to %d", c.Hollow, hollow.Most))
	}
	var err error
	if c.only, err = regexp.Compile(c.Only); err != nil {
		faults = append(faults, fmt.Errorf("-only: %w", err))
	}
	for _, dir := range []*string{&c.Dir, &c.Root} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			faults = append(faults, err)
		}
	}
	for _, program := range []string{"shoal", "shoal-lab"} {
		if _, err := os.Stat(c.program(program)); err != nil {
			faults = append(faults, fmt.Errorf("%w: run `make build` first", err))
		}
	}
	if os.Geteuid() != 0 {
		faults = append(faults, errors.New("hosts are made of namespaces, which takes root"))
	}
	return errors.Join(faults...)
}

func (c *config) program(name string) string { return filepath.Join(c.Root, "bin", name) }

func (c *config) takes(step string) bool { return c.only.MatchString(step) }

const (
	microPort     = 8000
	publishedPort = 30500
	// healLimit is when a step is given up. Docker Swarm needs some 20 s for the loss of a machine.
	healLimit = 120 * time.Second
)

// step is one measurement of a phase: of the clusters one after the other, or of all in turns.
type step struct {
	name     string
	each     func(ctx context.Context, b *bench, o orchestrator) error
	together func(ctx context.Context, b *bench, clusters []orchestrator) error
}

// phase is a set of steps on clusters of one size. Without managers there is no cluster.
type phase struct {
	name              string
	managers, workers int
	steps             []step
}

func phases() []phase {
	return []phase{
		{"three", 1, 2, []step{
			{name: "scale", together: scales}, {name: "create", each: creates}, {name: "container", each: containerLoss}, {name: "host", each: hostLoss},
		}},
		{"managers", 3, 1, []step{{name: "dispatcher", each: dispatcherLoss}, {name: "leader", each: leaderLoss}}},
		{"idle", 1, 0, []step{{name: "idle", each: idleMemory}}},
		{"one", 1, 0, []step{{name: "one", each: oneMachine}}},
		{"hundred", 1, 0, []step{{name: "hundred", each: hundredContainers}}},
		{"hollow", 1, 0, []step{{name: "hollow", each: hollowNodes}}},
		{"logs", 0, 0, []step{{name: "logs", together: logPath}}},
	}
}

// bench is one run.
type bench struct {
	cfg    config
	log    *slog.Logger
	report *report
	serial int // makes names unique
}

// Run measures. The report is nil if nothing could be begun; with an error it has what was measured before.
func Run(ctx context.Context, cfg config, log *slog.Logger) (*report, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	release, err := claim(cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer release()
	b := &bench{cfg: cfg, log: log, report: newReport()}
	began := time.Now()
	defer func() { b.report.end(began) }()
	b.say()
	if cfg.Peers {
		if err := installDocker(ctx, log); err != nil {
			b.cfg.Peers = false
			b.report.note("Docker Swarm was not measured: " + err.Error())
		}
	}
	for _, p := range phases() {
		err = errors.Join(err, b.phase(ctx, p))
		if ctx.Err() != nil {
			break
		}
	}
	return b.report, err
}

// claim takes the folder for this run alone and removes what an earlier one left.
func claim(dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("another bench works in %s: wait for its end, or name another folder with -dir", dir)
	}
	return func() {
		// Only what is this program's own, and the folder if nothing is left: a laboratory that could not be taken down
		// may have mounts in it.
		_ = os.Remove(lock.Name())
		_ = os.Remove(dir)
		lock.Close()
	}, nil
}

// phase takes its steps on each cluster in turn, and removes the clusters.
func (b *bench) phase(ctx context.Context, p phase) (err error) {
	var steps []step
	for _, s := range p.steps {
		if b.cfg.takes(s.name) {
			steps = append(steps, s)
		}
	}
	if len(steps) == 0 {
		return nil
	}
	clusters, err := b.bring(ctx, p)
	defer func() {
		for _, o := range clusters {
			err = errors.Join(err, o.close())
		}
	}()
	if err != nil {
		return err
	}
	left := slices.Clone(clusters)
	var faults []error
	for _, s := range steps {
		b.log.Info("step", "name", s.name)
		var fault error
		left, fault = b.step(ctx, s, left)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		faults = append(faults, fault)
	}
	return errors.Join(faults...)
}

// step takes one step and returns the clusters that can take the next one: one that failed is in no known state. What
// went wrong with ours is an error of the run; of a peer, the report says it.
func (b *bench) step(ctx context.Context, s step, clusters []orchestrator) (left []orchestrator, fault error) {
	if s.together != nil {
		if err := s.together(ctx, b, clusters); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			b.report.why(s.name, "-", "", err.Error())
			return nil, fmt.Errorf("step %s: %w", s.name, err)
		}
		return clusters, nil
	}
	for _, o := range clusters {
		err := s.each(ctx, b, o)
		if err == nil {
			left = append(left, o)
			continue
		}
		if ctx.Err() != nil {
			return nil, err
		}
		err = fmt.Errorf("step %s in %s: %w", s.name, o.on().Dir(), err)
		b.report.why(s.name, "-", "", err.Error())
		if o.who() == ours {
			fault = err
		}
	}
	return left, fault
}

// bring makes the clusters of a phase, ours first. A peer that can't be made is told in the report.
func (b *bench) bring(ctx context.Context, p phase) (clusters []orchestrator, err error) {
	if p.managers == 0 {
		return nil, nil
	}
	for _, name := range []string{"shoal-" + p.name, "swarm-" + p.name} {
		if err := harness.DownDir(filepath.Join(b.cfg.Dir, name), b.cfg.program("shoal-lab")); err != nil {
			return nil, err
		}
	}
	b.log.Info("cluster", "of", "shoal", "managers", p.managers, "workers", p.workers)
	o, err := newShoal(ctx, b.cfg, "shoal-"+p.name, p.managers, p.workers, b.log)
	if o != nil {
		clusters = append(clusters, o)
	}
	if err == nil {
		err = whole(ctx, o)
	}
	if err != nil || !b.cfg.Peers {
		return clusters, err
	}
	b.log.Info("cluster", "of", "Docker Swarm", "managers", p.managers, "workers", p.workers)
	peer, err := newSwarm(ctx, b.cfg, "swarm-"+p.name, p.managers, p.workers, b.log)
	if err == nil {
		err = whole(ctx, peer)
	}
	switch {
	case err == nil:
		b.report.note(peer.version(ctx))
		clusters = append(clusters, peer)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	default:
		b.report.note(fmt.Sprintf("Docker Swarm with %d managers and %d workers was not measured: %v", p.managers, p.workers, err))
		err = nil
	}
	if err != nil && peer != nil || len(clusters) == 1 && peer != nil {
		err = errors.Join(err, peer.close())
	}
	return clusters, err
}

// name makes a name that no service of this run has had.
func (b *bench) name(what string) string {
	b.serial++
	return fmt.Sprintf("%s-%d", what, b.serial)
}

// say writes down what the figures are and are not.
func (b *bench) say() {
	b.report.note("All hosts, the clients and the load share this machine's CPUs. Hosts are namespaces; one kernel, one disk.")
	b.report.note("Bare containerd: the same image, snapshotter, shim, log file, and OCI spec (capabilities, seccomp, mounts, sysctls, limits), the same spread over the same three daemons, 8 at once on each; but an empty network namespace by runc, no address, no cluster, and done when each process has started.")
	if b.cfg.Peers {
		b.report.note("Docker Swarm: Debian's docker.io, no published ports, because its ingress and its virtual addresses need IPVS, which this kernel lacks; so its figures end when its manager says running, while shoal's also have an answer from each replica.")
	}
}
