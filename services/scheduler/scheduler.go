// Package scheduler is the process that decides: which slots a service has, which task fills each, on which node, and when
// it starts and stops. It keeps nothing: all it knows is a replica of the store, all it wants is a commit.
package scheduler

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
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/answer"
	"github.com/shoalproject/shoal/services/scheduler/internal/decideloop"
)

const (
	// port is where a scheduler listens by default.
	port = 2382
	// duty is the name of the lease.
	duty = "scheduler"
)

// Config is the process's configuration file.
type Config struct {
	config.Base `yaml:",inline"`
	// Lease is for how long at most the death of the scheduler that decides leaves nothing decided: after five sixths of it in
	// silence a standby takes over. Limits: 1s to 1m.
	Lease time.Duration `yaml:"lease"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Lease: 3 * time.Second}
}

// Validate returns all faults at once.
func (c Config) Validate() error {
	var f errs.Collector
	f.Merge("", c.Base.Validate())
	f.Check(c.Lease >= time.Second && c.Lease <= time.Minute, "lease", "must be from 1s to 1m")
	return f.Err("config")
}

// Run wires the scheduler and blocks until ctx ends or a part fails.
func Run(ctx context.Context, cfg Config, env run.Env) error {
	p, err := process.Open(env, cfg.Base, authzv1.Role_ROLE_SCHEDULER, port)
	if err != nil {
		return fmt.Errorf("open process: %w", err)
	}
	conn, err := p.Dial(authzv1.Role_ROLE_STORE) // any member
	if err != nil {
		return fmt.Errorf("dial store: %w", err)
	}
	defer conn.Close()
	commits := storev1.NewCommitServiceClient(conn)
	view := replica.New(p.Env, storev1.NewWatchServiceClient(conn), decideloop.Kinds()...)
	silence := cfg.Lease - cfg.Lease/6                           // what is left is for taking over
	seat := lease.New(p.Env, commits, view, duty, p.ID, silence) // Step 1: be the one who decides…
	loop := decideloop.New(p.Env, view, seat, commits)           // Step 2: …and decide, fenced by the seat

	answer.New(view).Register(p.Server.GRPC()) // Step 3: say why, and what would be if; a standby can, too

	p.Alive("decide", loop.Alive)
	seat.YieldWhile(p.Drain)
	p.Burden.Busy = func() bool { _, held := seat.Held(); return held }

	g := run.NewGroup(p.Env.Log)
	p.Go(g, process.StorePart)
	g.Go("replica", view.Run)
	g.Go("follow", func(ctx context.Context) error { return p.Follow(ctx, view) })
	g.Go("announce", func(ctx context.Context) error { return p.Announce(ctx, view, commit.New(commits, p.Env.Rand)) })
	g.Go("lease", seat.Run)
	g.Go("decide", loop.Run)
	return g.Wait(ctx)
}
