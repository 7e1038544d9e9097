// Package dispatcher is the process that delivers: assignments to machines, their status to the store, tables to
// meshproxies, and the judgement whether a machine lives. It keeps nothing that outlives it.
package dispatcher

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/lease"
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/replica"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/barrier"
	"github.com/shoalproject/shoal/services/dispatcher/internal/bulletin"
	"github.com/shoalproject/shoal/services/dispatcher/internal/endpoint"
	"github.com/shoalproject/shoal/services/dispatcher/internal/liveness"
	"github.com/shoalproject/shoal/services/dispatcher/internal/load"
	"github.com/shoalproject/shoal/services/dispatcher/internal/place"
	"github.com/shoalproject/shoal/services/dispatcher/internal/session"
	"github.com/shoalproject/shoal/services/dispatcher/internal/splice"
	"github.com/shoalproject/shoal/services/dispatcher/internal/spread"
	"github.com/shoalproject/shoal/services/dispatcher/internal/status"
)

const (
	// port is where a dispatcher listens by default.
	port = 2383
	// writeBuffer is enough for what a machine is told most often; larger things go out in parts.
	writeBuffer = 4 << 10
)

// Config is the process's configuration file.
type Config struct {
	config.Base `yaml:",inline"`
	// HeartbeatPeriod is how often a machine says that it lives, as it is told; with more than 1,250 machines at this dispatcher
	// they are told a longer one, in proportion, up to half of `down_after` and at most `suspect_after`. Limits: at least 50ms.
	HeartbeatPeriod time.Duration `yaml:"heartbeat_period"`
	// SuspectAfter is the silence after which a machine's endpoints leave the mesh; where machines are told a longer period
	// than half of it, it is this period and half of it. Limits: at least two `heartbeat_period`.
	SuspectAfter time.Duration `yaml:"suspect_after"`
	// DownAfter is the silence after which a machine's tasks are replaced. Limits: longer than `suspect_after`.
	DownAfter time.Duration `yaml:"down_after"`
	// Lease is the silence after which this dispatcher counts as gone to the others. Limits: at least 500ms.
	Lease time.Duration `yaml:"lease"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Base:            config.Base{Data: "/var/lib/shoal/dispatcher"},
		HeartbeatPeriod: 500 * time.Millisecond,
		SuspectAfter:    2 * time.Second,
		DownAfter:       4 * time.Second,
		Lease:           2 * time.Second,
	}
}

// Validate returns all faults at once.
func (c Config) Validate() error {
	var f errs.Collector
	f.Merge("", c.Base.Validate())
	f.Check(c.HeartbeatPeriod >= 50*time.Millisecond, "heartbeat_period", "must be at least 50ms")
	f.Check(c.SuspectAfter >= 2*c.HeartbeatPeriod, "suspect_after", "must be at least two heartbeat periods")
	f.Check(c.DownAfter > c.SuspectAfter, "down_after", "must be longer than suspect_after")
	f.Check(c.Lease >= 500*time.Millisecond, "lease", "must be at least 500ms")
	return f.Err("config")
}

// Run wires the dispatcher and blocks until ctx ends or a part fails.
func Run(ctx context.Context, cfg Config, env run.Env) error {
	p, err := process.Open(env, cfg.Base, authzv1.Role_ROLE_DISPATCHER, port, rpc.WriteBuffer(writeBuffer))
	if err != nil {
		return fmt.Errorf("open process: %w", err)
	}
	conn, err := p.Dial(authzv1.Role_ROLE_STORE)
	if err != nil {
		return fmt.Errorf("dial store: %w", err)
	}
	defer conn.Close()
	commits := storev1.NewCommitServiceClient(conn)
	commit := commit.New(commits, p.Env.Rand)
	view := replica.New(p.Env, storev1.NewWatchServiceClient(conn),
		typesv1.Kind_KIND_CLUSTER, typesv1.Kind_KIND_NODE, typesv1.Kind_KIND_SERVICE, typesv1.Kind_KIND_TASK,
		typesv1.Kind_KIND_NETWORK, typesv1.Kind_KIND_MEMBER, typesv1.Kind_KIND_LEASE, typesv1.Kind_KIND_DENIAL,
		typesv1.Kind_KIND_LOAD, typesv1.Kind_KIND_REGISTRY)
	self := p.ID.Name
	times := liveness.Times{Period: cfg.HeartbeatPeriod, Suspect: cfg.SuspectAfter, Down: cfg.DownAfter, Lease: cfg.Lease}

	seat := lease.New(p.Env, commits, view, liveness.LeaseName(self), p.ID, cfg.Lease)
	table := liveness.NewTable()
	monitor := liveness.New(self, p.Env, view, commit, table, times)
	mesh := barrier.New(self, p.ID.Member(), p.Env.Log, view, commit, monitor.Live, cfg.SuspectAfter)
	statuses := status.New(self, p.Env, view, commit)
	loads := load.New(self, p.Env, view, commit)
	board := new(bulletin.Board)
	spreader := spread.New(self, p.Env, view.Snapshot, monitor.Live, p.Drain)
	var calls *splice.Server // made below: it asks on the sessions
	sessions := session.New(session.Parts{
		Self: self, Env: p.Env, View: view, Commit: commit, Statuses: statuses, Usage: loads, Payloads: storev1.NewPayloadServiceClient(conn), Table: table, Barrier: mesh, Board: board,
		Refusal: spreader.Refusal, Refused: func(node string, m *dispatcherv1.StreamRefusal) { calls.Refused(node, m) },
	}, session.Options{Times: times})
	endpoints := endpoint.New(p.Env, view, mesh, board, spreader.Refusal)
	if calls, err = offerCalls(p, view, sessions); err != nil {
		return err
	}
	dispatcherv1.RegisterSessionServiceServer(p.Server.GRPC(), sessions)
	dispatcherv1.RegisterEndpointServiceServer(p.Server.GRPC(), endpoints)

	p.Burden = process.Burden{
		Load: func() uint64 { return uint64(table.Carried()) },
		Busy: func() bool { return table.Carried()+endpoints.Carried() > 0 },
	}

	p.Alive("liveness", monitor.Alive)
	g := run.NewGroup(p.Env.Log)
	p.Go(g, process.StorePart)
	g.Go("replica", view.Run)
	g.Go("follow", func(ctx context.Context) error { return p.Follow(ctx, view) })
	g.Go("announce", func(ctx context.Context) error { return p.Announce(ctx, view, commit) })
	g.Go("lease", seat.Run)
	g.Go("liveness", monitor.Run)
	g.Go("barrier", mesh.Run)
	g.Go("status", statuses.Run)
	g.Go("load", loads.Run)
	g.Go("sessions", sessions.Run)
	g.Go("endpoints", endpoints.Run)
	g.Go("spread", func(ctx context.Context) error { return spreader.Run(ctx, table, endpoints) })
	return g.Wait(ctx)
}

// offerCalls offers what people want to see and do in containers, and takes the agents' streams for it.
func offerCalls(p *process.Process, view *replica.Replica, sessions *session.Server) (*splice.Server, error) {
	calls := splice.New(p.ID.Name, p.Env, view, sessions, sessions.Draining())
	if err := calls.Register(p.Server.GRPC()); err != nil {
		return nil, fmt.Errorf("offer calls to agents: %w", err)
	}
	dispatcherv1.RegisterStreamServiceServer(p.Server.GRPC(), calls)
	logsv1.RegisterPlaceServiceServer(p.Server.GRPC(), place.New(view, sessions.Draining()))
	return calls, nil
}
