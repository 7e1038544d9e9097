package process_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/replica"
	"github.com/shoalproject/shoal/internal/replica/replicatest"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// How a process is stands in its Member soon after it changed, and costs the store next to nothing: a part that changes a
// hundred times a second is told about once a second, one that does not every fifteen.
func TestAProcessSaysHowItIsWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		ca := identitytest.New(t, env, "c1")
		p, err := process.Open(env, install(t, env, ca, dispRole, "/d"), dispRole, 2383)
		if err != nil {
			t.Fatal(err)
		}
		store := replicatest.New(env)
		store.Put(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c1"}, Authority: &typesv1.Authority{Bundle: ca.Bundle()}}))
		conn := store.Dial(t)
		other := env
		other.Metrics = testx.Env(t).Metrics
		view := replica.New(other, storev1.NewWatchServiceClient(conn), typesv1.Kind_KIND_CLUSTER, typesv1.Kind_KIND_MEMBER, typesv1.Kind_KIND_DENIAL)
		var load atomic.Uint64
		load.Store(3)
		p.Burden.Load = load.Load
		g := run.NewGroup(env.Log)
		g.Go("replica", view.Run)
		g.Go("follow", func(ctx context.Context) error { return p.Follow(ctx, view) })
		g.Go("announce", func(ctx context.Context) error {
			return p.Announce(ctx, view, commit.New(storev1.NewCommitServiceClient(conn), env.Rand))
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, g.Wait(ctx) })
		status := func() *typesv1.MemberStatus { return store.Snapshot().Member("dispatcher/m1").GetStatus() }

		time.Sleep(5 * time.Second)
		if s := status(); s.GetLoad() != 3 || s.GetDrained() {
			t.Errorf("at first: %v", s)
		}
		before := store.Commits()
		time.Sleep(time.Minute)
		if n := store.Commits() - before; n < 3 || n > 5 {
			t.Errorf("%d commits in a quiet minute, want 4", n)
		}
		before = store.Commits()
		for i := range 500 {
			p.Server.Health().Set("disk", i%2 == 0, "is slow")
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		if n := store.Commits() - before; n > 8 {
			t.Errorf("%d commits while a part changed for 5 s, want one a second", n)
		}
		if s := status(); len(s.GetWaits()) != 1 || s.GetWaits()[0] != "disk: is slow" {
			t.Errorf("while the disk is slow: %v", s)
		}
		store.Put(state.Wrap(&typesv1.Member{
			Meta: &typesv1.Meta{Id: "dispatcher/m1"}, Role: dispRole, MachineId: "m1", Addresses: p.Addresses(), Weight: 10,
			FeatureLevel: process.FeatureLevel, Version: run.Version(), Spec: &typesv1.MemberSpec{Drain: true}, Status: status(),
		}))
		time.Sleep(3 * time.Second)
		if s := status(); !p.Drain.Wanted() || s.GetDrained() {
			t.Errorf("drained with a load of 3: %v", s)
		}
		load.Store(0)
		time.Sleep(3 * time.Second)
		if s := status(); !s.GetDrained() || s.GetLoad() != 0 {
			t.Errorf("with nothing left: %v", s)
		}
		cancel()
		if r := <-done; r.Err != nil {
			t.Error(r.Err)
		}
	})
}
