package rpc_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
)

// order is a Drain that a test gives.
type order struct {
	mu      sync.Mutex // guards all below
	wanted  bool
	changed chan struct{}
}

func (o *order) Wanted() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.wanted
}

func (o *order) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

func (o *order) give(wanted bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wanted = wanted
	close(o.changed)
	o.changed = make(chan struct{})
}

// A server that turns its clients away answers the calls that it has and takes no new ones; clients that know another
// server lose no call, and come back when it is wanted again.
func TestTurnAwayLosesNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		drain := &order{changed: make(chan struct{})}
		a := w.serveWith(t, w.keeper(t, storeRole, "a"), "a:1", drain)
		b := w.serve(t, w.keeper(t, storeRole, "b"), "b:1")
		client := w.dialAll(t, w.keeper(t, operatorRole, "ann"), directoryOf(t, w, "a:1", "b:1"))
		alone := w.dial(t, w.keeper(t, schedulerRole, "t"), "a:1")
		for range 4 {
			if err := listOnce(t.Context(), client); err != nil {
				t.Fatal(err)
			}
		}
		slow := make(chan struct{})
		a.commit = func(context.Context) error { <-slow; return nil }
		underWay := make(chan error, 1)
		go func() { underWay <- commitOnce(context.Background(), alone, "slow") }()
		synctest.Wait()

		before := b.calls.Load()
		drain.give(true)
		for range 20 {
			time.Sleep(50 * time.Millisecond)
			if err := listOnce(t.Context(), client); err != nil {
				t.Fatalf("a call failed while one server drained: %v", err)
			}
		}
		if n := b.calls.Load() - before; n != 20 {
			t.Errorf("the other server had %d of 20 calls", n)
		}
		close(slow)
		if err := <-underWay; err != nil {
			t.Errorf("the call that was under way: %v", err)
		}
		time.Sleep(3 * time.Second)
		if l := a.server.Load(); l.Connections != 0 || l.Calls != 0 {
			t.Errorf("the drained server still has %+v", l)
		}
		if err := commitOnce(t.Context(), alone, "two"); !errs.Is(err, errs.Unavailable) {
			t.Errorf("who knows the drained server alone: %v", err)
		}
		drain.give(false)
		time.Sleep(5 * time.Second)
		if err := commitOnce(t.Context(), alone, "three"); err != nil {
			t.Errorf("it is wanted again: %v", err)
		}
	})
}
