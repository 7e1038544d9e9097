package process_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// view is a replica whose health a test sets.
type view struct {
	mu       sync.Mutex // guards below
	snapshot *state.Snapshot
	trouble  error
	changed  chan struct{}
}

func (v *view) Snapshot() *state.Snapshot {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.snapshot
}

func (v *view) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

func (v *view) Health() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.trouble
}

// set is what a replica does: a new snapshot wakes, the end of a stream does not.
func (v *view) set(s *state.Snapshot, trouble error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.trouble = trouble
	if s != v.snapshot {
		v.snapshot = s
		close(v.changed)
		v.changed = make(chan struct{})
	}
}

// READY=1 is said once, when the process listens and follows the store, and not before; what is lost later is its status.
func TestReadyWhenItFollowsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		said := make(chan string, 1000)
		env.Notify = func(s string) error { said <- s; return nil }
		ca := identitytest.New(t, env, "c1")
		ca.Write(t, env, "/gateway/identity", identitytest.Leaf{URIs: []string{ca.ID(authzv1.Role_ROLE_GATEWAY, "g1").URI()}})
		base := config.Base{Data: "/gateway", Advertise: []string{"gw"}}
		p, err := process.Open(env, base, authzv1.Role_ROLE_GATEWAY, 2384)
		if err != nil {
			t.Fatal(err)
		}
		v := &view{snapshot: state.Empty(), changed: make(chan struct{}), trouble: errs.New(errs.Unavailable, "no store yet")}
		g := run.NewGroup(env.Log)
		p.Go(g, process.StorePart)
		g.Go("follow", func(ctx context.Context) error { return p.Follow(ctx, v) })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Wait(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()

		ready := func() (n int) {
			for len(said) > 0 {
				if <-said == "READY=1" {
					n++
				}
			}
			return n
		}
		time.Sleep(5 * time.Second)
		if ready() != 0 {
			t.Fatal("ready without the store")
		}
		txn := state.Empty().Begin()
		txn.Put(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c1"}}))
		s := txn.Commit(state.Version{EpochNumber: 1, Revision: 1}, time.Time{})
		v.set(s, nil)
		synctest.Wait()
		if got := ready(); got != 1 {
			t.Fatalf("READY=1 was said %d times, want once", got)
		}
		v.set(s, errs.New(errs.Unavailable, "the member was silent"))
		time.Sleep(time.Second)
		if ok, waiting := p.Server.Health().Serving(); ok || len(waiting) != 1 {
			t.Fatalf("serving %t, waits for %q; want the store", ok, waiting)
		}
		v.set(s, nil)
		time.Sleep(time.Second)
		if ok, _ := p.Server.Health().Serving(); !ok || ready() != 0 {
			t.Fatal("not well again, or READY=1 was said again")
		}
	})
}
