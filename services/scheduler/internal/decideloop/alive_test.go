package decideloop_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/lease"
	"github.com/shoalproject/shoal/internal/replica"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decideloop"
)

// The loop answers a watchdog also while the store is away: a restart would mend nothing.
func TestAliveThroughAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		store := cluster(env, 1)
		conn := store.Dial(t)
		commits := storev1.NewCommitServiceClient(conn)
		view := replica.New(env, storev1.NewWatchServiceClient(conn), decideloop.Kinds()...)
		seat := lease.New(env, commits, view, "scheduler", identity.ID{Role: authzv1.Role_ROLE_SCHEDULER, Name: "x"}, 3*time.Second)
		loop := decideloop.New(env, view, seat, commits)
		var slowest time.Duration
		g := run.NewGroup(env.Log)
		g.Go("replica", view.Run)
		g.Go("lease", seat.Run)
		g.Go("decide", loop.Run)
		g.Go("watchdog", func(ctx context.Context) error {
			for ctx.Err() == nil {
				begun := time.Now()
				_ = loop.Alive(ctx) // until the test's end, if it must be
				slowest = max(slowest, time.Since(begun))
				_ = run.Sleep(ctx, 300*time.Millisecond)
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Wait(ctx) }()
		time.Sleep(time.Second)
		store.OnCommit(func(tx *storev1.Transaction) error {
			if len(tx.GetPuts()) > 1 {
				return errs.New(errs.Unavailable, "no quorum")
			}
			return nil
		})
		store.Put(service(5))
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if slowest > 10*time.Second {
			t.Errorf("the loop answered after %s, a watchdog waits 20 s", slowest)
		}
	})
}
