// Package hollow plays machines: in one process thousands of real agents, each with its own certificate and its own session,
// over containers in memory. The cluster that they join is real.
//
// It owns what a machine has beside its agent: files, a name, an address that nobody dials. It must never know the agent's
// rules, nor speak its protocol: the agent does. A Fleet is safe for concurrent use.
package hollow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	"github.com/shoalproject/shoal/services/agent"
	"github.com/shoalproject/shoal/services/agent/agenttest"
)

const (
	// Most is how many machines one process plays: a cluster's machine network has blocks for 16,384.
	Most = 10_000
	// spare are the open files that are no machine's.
	spare = 200
	// joinsAtOnce and joinTries bound the joins. A machine that is refused comes again a moment later.
	joinsAtOnce = 32
	joinTries   = 20
	joinPause   = 200 * time.Millisecond
	// parallel is how many containers a machine makes at once: they cost nothing.
	parallel = 2
	// comeAtOnce is how many machines come up at the same time, and comeLimit how long one of them may hold up the next. Each
	// waits a second for the meshproxy that it has not got, so this is also how many come up in a second.
	comeAtOnce = 256
	comeLimit  = 5 * time.Second
	// collectAt is how much garbage there may be, in percent of what is in use: collecting takes the processors that sessions need.
	collectAt = 300
	// collectMost is the memory that is not collected for a measurement: what 5,000 agents take in some five minutes.
	collectMost = 14 << 30
)

// Options are a fleet's.
type Options struct {
	// Nodes is how many machines there are, 1 to Most.
	Nodes int
	// Token and Remotes are what `shoal join` is given.
	Token   string
	Remotes []string
	// Sources are addresses of this machine that the connections come from, in turns; none: the kernel's choice. A server takes
	// only so many handshakes of one address at once.
	Sources []netip.Addr
	// Log is told how far the fleet is; the agents' own words are not kept.
	Log *slog.Logger
}

// Fleet is the machines.
type Fleet struct {
	opts  Options
	real  run.Env
	nodes []*Node
	gate  gate
	turns *turns
	held  bool // its memory is not collected
}

// Node is one machine.
type Node struct {
	// Name is its host name, Address what it advertises.
	Name, Address string
	// ID is its machine id, once it has joined.
	ID string
	// Host has its containers.
	Host *agenttest.Host

	env   run.Env
	voice *voice
}

// New makes the machines. They have nothing to do with the cluster yet.
func New(opts Options) (*Fleet, error) {
	if opts.Nodes < 1 || opts.Nodes > Most {
		return nil, fmt.Errorf("%d hollow nodes: it must be 1 to %d", opts.Nodes, Most)
	}
	if err := openFiles(opts.Nodes + spare); err != nil {
		return nil, err
	}
	f := &Fleet{opts: opts, real: run.Machine("hollow"), gate: newGate(), turns: newTurns()}
	addr := netip.MustParseAddr("100.64.0.0") // of a range that no site uses for machines of its own
	for i := range opts.Nodes {
		addr = addr.Next()
		name := fmt.Sprintf("hollow-%04d", i+1)
		v := newVoice(f.turns)
		f.nodes = append(f.nodes, &Node{
			Name: name, Address: addr.String(), Host: agenttest.NewHost(name, f.real.Rand), env: f.env(i, name, v), voice: v,
		})
	}
	return f, nil
}

// openFiles raises the limit of open files as far as it may be raised: each session is a connection.
func openFiles(want int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if limit.Max < uint64(want) {
		return fmt.Errorf("%d open files are needed and %d are allowed: play fewer machines, or raise the limit (ulimit -Hn)", want, limit.Max)
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	return nil
}

// env is what a machine's agent takes from outside.
func (f *Fleet) env(i int, name string, v *voice) run.Env {
	env := f.real
	env.Host, env.Log = name, slog.New(v)
	own := network{Network: f.real.Net, gate: f.gate, absent: &absent{over: f.turns.over}}
	if n := len(f.opts.Sources); n > 0 {
		own.source = net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.opts.Sources[i%n], 0))
	}
	env.Net, env.Files, env.Metrics = own, testx.NewFiles(), prometheus.NewRegistry()
	env.Notify = func(string) error { return nil }
	env.Supervised, env.Watchdog = false, 0
	return env
}

// Nodes are the machines, in the order of their names.
func (f *Fleet) Nodes() []*Node { return f.nodes }

// Join joins all machines to the cluster.
func (f *Fleet) Join(ctx context.Context) error {
	began, done := time.Now(), atomic.Int64{}
	return run.Each(ctx, joinsAtOnce, f.nodes, func(ctx context.Context, n *Node) error {
		if err := f.join(ctx, n); err != nil {
			return fmt.Errorf("join of %s: %w", n.Name, err)
		}
		if d := done.Add(1); d%500 == 0 || int(d) == len(f.nodes) {
			f.opts.Log.Info("hollow nodes have joined", "nodes", d, "of", len(f.nodes), "took", time.Since(began).Round(time.Millisecond))
		}
		return nil
	})
}

func (f *Fleet) join(ctx context.Context, n *Node) error {
	var last error
	for range joinTries {
		got, err := enroll.Join(ctx, n.env, enroll.Request{
			Token: f.opts.Token, Addresses: f.opts.Remotes, Advertise: []string{n.Address}, Roles: []authzv1.Role{authzv1.Role_ROLE_AGENT},
		})
		if err == nil {
			n.ID = got.MachineID
			return nil
		}
		if k := errs.KindOf(err); k != errs.Unavailable && k != errs.Exhausted {
			return err
		}
		last = err
		if err := run.Sleep(ctx, n.env.Rand.Jitter(joinPause, 0.5)); err != nil {
			return errors.Join(err, last)
		}
	}
	return last
}

// Run lets the agents work until ctx ends, or one of them fails. They come up a few at a time, each when one before it is in
// session: thousands that begin at once have no turn on this machine's processors for what holds their sessions.
func (f *Fleet) Run(ctx context.Context) error {
	if !f.held {
		defer debug.SetGCPercent(debug.SetGCPercent(collectAt))
	}
	g := run.NewGroup(f.real.Log)
	g.Go("turns", func(ctx context.Context) error {
		<-ctx.Done()
		f.turns.end()
		return nil
	})
	places := make(chan struct{}, comeAtOnce)
	for _, n := range f.nodes {
		g.Go(n.Name, func(ctx context.Context) error {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			ctx, cancel := context.WithCancel(ctx)
			up := run.Async(ctx, func(ctx context.Context) (struct{}, error) {
				n.voice.firstSession(ctx, comeLimit)
				<-places
				return struct{}{}, nil
			})
			defer func() { cancel(); <-up }()
			return agent.Run(ctx, n.config(), n.Host.Env(n.env))
		})
	}
	return g.Wait(ctx)
}

func (n *Node) config() agent.Config {
	cfg := agent.DefaultConfig()
	cfg.Base = config.Base{Data: enroll.DefaultRoot + "/agent", Advertise: []string{n.Address}}
	cfg.Parallel = parallel
	return cfg
}

// Undisturbed has the fleet's memory not collected until end is called. To go through what thousands of agents have in use takes a
// processor for seconds, and who allocates meanwhile must help: machines lose their sessions by it. It is called
// between Join and Run: what joins leave behind is soon collected, and its memory is there for the sessions.
func (f *Fleet) Undisturbed() (end func()) {
	f.held = true
	percent, most := debug.SetGCPercent(-1), debug.SetMemoryLimit(collectMost)
	return func() {
		debug.SetMemoryLimit(most)
		debug.SetGCPercent(percent)
	}
}

// Opened counts the sessions that each machine has opened, in the order of Nodes.
func (f *Fleet) Opened() []int {
	out := make([]int, 0, len(f.nodes))
	for _, n := range f.nodes {
		opened, _ := n.voice.sessions()
		out = append(out, opened)
	}
	return out
}

// InSession counts the machines that are in session, and have opened one since before was taken; nil: ever.
func (f *Fleet) InSession(before []int) (count int) {
	for i, n := range f.nodes {
		opened, open := n.voice.sessions()
		if open && (before == nil || opened > before[i]) {
			count++
		}
	}
	return count
}

// AwaitSessions waits until all machines are in session at the same time, each by one that was opened since before was taken.
func (f *Fleet) AwaitSessions(ctx context.Context, before []int) error {
	for f.InSession(before) < len(f.nodes) {
		if err := run.Sleep(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d machines are in session: %w", f.InSession(before), len(f.nodes), err)
		}
	}
	return nil
}

// Watch tells when all machines are in session, and when they no longer are, until ctx ends.
func (f *Fleet) Watch(ctx context.Context) {
	since, all := time.Now(), false
	for run.Sleep(ctx, 50*time.Millisecond) == nil {
		now := f.InSession(nil)
		if all == (now == len(f.nodes)) {
			continue
		}
		if all = !all; all {
			f.opts.Log.Info("all hollow nodes are in session", "nodes", now, "took", time.Since(since).Round(10*time.Millisecond))
			continue
		}
		since = time.Now()
		f.opts.Log.Info("hollow nodes have lost their sessions", "in_session", now, "of", len(f.nodes))
	}
}

// Containers counts those that run, on all machines.
func (f *Fleet) Containers() (running int) {
	for _, n := range f.nodes {
		for _, c := range n.Host.Containers() {
			if c.Running {
				running++
			}
		}
	}
	return running
}
