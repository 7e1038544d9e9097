// Package store remembers and admits: it keeps the cluster's objects in a Raft group, and serves the control API, commits
// and watches on them.
//
// It owns the log, the state machine, what a person's request must be like, and the choice of addresses and ports. It must
// never act on its own: no timer of it changes an object. Run may be called many times in one process, each with its own
// Env; nothing is shared.
package store

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/keyset"
	"github.com/shoalproject/shoal/internal/keyset/wrapper"
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/store/internal/control"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
	"github.com/shoalproject/shoal/services/store/internal/logstore"
	"github.com/shoalproject/shoal/services/store/internal/payload"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
	"github.com/shoalproject/shoal/services/store/internal/raw"
	"github.com/shoalproject/shoal/services/store/internal/relay"
	"github.com/shoalproject/shoal/services/store/internal/transport"
	"github.com/shoalproject/shoal/services/store/internal/watch"
)

// port is the store's own.
const port = 2381

// maxMessage is what a store takes as one message. It is many times what another store puts into one: a leader would send
// what is refused again for ever.
const maxMessage = 16 << 20

// handOverTime is how long a leader that stops waits for another to lead.
const handOverTime = time.Second

// Config is the store's config file.
type Config struct {
	config.Base `yaml:",inline"`
	// SnapshotEntries is how many log entries are applied between two snapshots. Unit: entries. Limits: at least 100.
	SnapshotEntries uint64 `yaml:"snapshot_entries"`
	// KeepEntries is how many log entries stay behind a snapshot for followers that lag. Unit: entries. Limits: at least 0.
	KeepEntries uint64 `yaml:"keep_entries"`
	// Learner keeps a store that joins from voting until somebody promotes it: it serves reads and watches. Once it has
	// joined, the cluster remembers what it is. Default: false.
	Learner bool `yaml:"learner"`
}

// DefaultConfig is a config that lacks only what a machine must say itself.
func DefaultConfig() Config { return Config{SnapshotEntries: 10_000, KeepEntries: 2_000} }

// Validate returns all faults at once.
func (c Config) Validate() error {
	var all errs.Collector
	all.Merge("", c.Base.Validate())
	all.Check(c.SnapshotEntries >= 100, "snapshot_entries", "is %d, at least 100 are wanted", c.SnapshotEntries)
	return all.Err("store")
}

// Env is what the store takes from outside.
type Env struct {
	run.Env
	// Storage keeps the log; nil is Pebble in the folder raft of the store's data.
	Storage logstore.Storage
}

// Run is the store. It blocks until ctx ends, a part fails, or the store is removed from the cluster.
func Run(ctx context.Context, cfg Config, env Env) error {
	p, err := process.Open(env.Env, cfg.Base, authzv1.Role_ROLE_STORE, port, rpc.MaxMessage(maxMessage))
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	wrapKey, err := identity.WrapKey(p.Env.Files, p.Path("wrap.key"), p.Env.Rand)
	if err != nil {
		return fmt.Errorf("wrap key: %w", err)
	}
	// Step 1: the member with its log. From here on it must be closed by its own Run.
	hub := watch.NewHub()
	wires := transport.New(p.Env.Log, func(address string) (*grpc.ClientConn, error) {
		return p.DialAddress(address, authzv1.Role_ROLE_STORE)
	})
	first, err := readFirst(p)
	if err != nil {
		return err
	}
	node, err := startNode(cfg, env, p, hub, wires, first)
	if err != nil {
		return fmt.Errorf("start the store: %w", err)
	}
	wires.Bind(node)

	// Step 2: what is served.
	to := &relay.Relay{Self: p.ID, Node: node, Conn: wires.Conn}
	raws := raw.Services{Node: node, Transport: wires, Relay: to, Hub: hub}
	raws.Register(p.Server.GRPC())
	keys := keyset.NewHolder()
	control.New(control.Config{Node: node, Relay: to, Rand: p.Env.Rand, Now: p.Env.Now, Keys: keys}).Register(p.Server.GRPC())
	storev1.RegisterPayloadServiceServer(p.Server.GRPC(), &payload.Server{Node: node, Relay: to, Keys: keys})

	// Step 3: this store among the others.
	self := newSelf(p, raws, cfg.Learner)
	hands := wrapper.New(p.Env, self.payloadKeys(), p.ID, wrapKey, keys, self.commits, nil)
	p.Burden = process.Burden{Load: hub.Watches, Busy: func() bool { return hub.Watches() > 0 || leads(node) }}
	g := run.NewGroup(p.Env.Log)
	g.Go("raft", node.Run)
	g.Go("transport", wires.Run)
	g.Go("bookmarks", func(ctx context.Context) error { return hub.Run(ctx, p.Env.Ticker, confirmed{node}) })
	g.Go("trust", func(ctx context.Context) error { return p.Follow(ctx, self) })
	g.Go("announce", self.announce)
	g.Go("membership", self.join)
	g.Go("payload key", func(ctx context.Context) error { return hands.Run(ctx, self) })
	g.Go("health", self.health)
	g.Go("drain", func(ctx context.Context) error { return self.drain(ctx, hub) })
	if first != nil {
		g.Go("first transaction", first.forget)
	}
	p.Alive("raft", node.Alive)
	p.Go(g)

	// Step 4: a leader that is told to stop gives the leadership away first, while everything still runs.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	g.Go("handover", func(gctx context.Context) error {
		select {
		case <-ctx.Done():
			handOver(gctx, node)
			cancel()
		case <-gctx.Done(): // a part has failed
		}
		return nil
	})
	return g.Wait(inner)
}

// handOver waits, but not for long, until another store leads.
func handOver(ctx context.Context, node *raftnode.Node) {
	if v := node.View(); v.Leader != v.ID || len(v.Peers) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	if err := node.Transfer(ctx); err != nil {
		return // nobody is there to lead; the others, if they come back, will elect
	}
	for v, changed := node.Watch(); v.Leader == v.ID || v.Leader == 0; v, changed = node.Watch() {
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func startNode(cfg Config, env Env, p *process.Process, hub *watch.Hub, wires *transport.Transport, first *first) (*raftnode.Node, error) {
	writers, err := fsm.ReadWriters()
	if err != nil {
		return nil, err
	}
	fsync := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "shoal_store_fsync_seconds", Help: "Time of synced writes to the log.",
		Buckets: prometheus.ExponentialBuckets(0.00005, 2, 16),
	})
	p.Env.Metrics.MustRegister(fsync)
	storage := env.Storage
	if storage == nil {
		storage = logstore.Disk{Dir: p.Path("raft"), Log: p.Env.Log, Synced: observe(fsync)}
	}
	c := raftnode.Config{
		Log: p.Env.Log, Storage: storage, Writers: writers, Transport: wires, Sink: hub,
		Rand: p.Env.Rand, Now: p.Env.Now, Ticker: p.Env.Ticker, Metrics: p.Env.Metrics,
		SnapshotEntries: cfg.SnapshotEntries, KeepEntries: cfg.KeepEntries,
	}
	if first != nil {
		c.First = first.begins
	}
	return raftnode.Start(c)
}

// callSelf makes the context of a call that the store makes to itself.
func callSelf(ctx context.Context, p *process.Process) context.Context {
	return rpc.WithCaller(ctx, rpc.Caller{Principal: p.ID})
}
