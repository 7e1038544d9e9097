package process

import (
	"context"
	"sync"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Drain is whether people want this process to take nobody new and to hand over what it has. It is safe for concurrent use.
type Drain struct {
	mu      sync.Mutex // guards all below
	wanted  bool
	changed chan struct{}
}

func newDrain() *Drain { return &Drain{changed: make(chan struct{})} }

// Wanted tells what is wanted now.
func (d *Drain) Wanted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wanted
}

// Changed is closed when Wanted tells something else. Take it before Wanted.
func (d *Drain) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

func (d *Drain) set(wanted bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wanted == wanted {
		return
	}
	d.wanted = wanted
	close(d.changed)
	d.changed = make(chan struct{})
}

// Await returns when draining is wanted, or is not any more; else with the context's error.
func (d *Drain) Await(ctx context.Context, wanted bool) error {
	for {
		changed := d.Changed()
		if d.Wanted() == wanted {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Burden is what a process carries, as it tells in its Member. Both must be quick and safe for concurrent use.
type Burden struct {
	// Load is a figure that means something for its role; nil: none.
	Load func() uint64
	// Busy says that somebody still relies on the process, so that it is not drained yet; nil: when Load is not 0.
	Busy func() bool
}

// rateWindow is the time over which calls are counted.
const rateWindow = reportEvery

// CallsAMinute is a Load for a process whose work comes as calls.
func (p *Process) CallsAMinute() func() uint64 {
	var mu sync.Mutex // guards all below
	var last, base uint64
	start := time.Now()
	return func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		if d := time.Since(start); d >= rateWindow {
			served := p.Server.Load().Served
			last, base, start = uint64(float64(served-base)/d.Minutes()+0.5), served, time.Now()
		}
		return last
	}
}

// Status is how the process is, in its own words.
func (p *Process) Status() *typesv1.MemberStatus {
	out := &typesv1.MemberStatus{}
	_, out.Waits = p.Server.Health().Serving()
	if p.Burden.Load != nil {
		out.Load = p.Burden.Load()
	}
	busy := out.GetLoad() > 0
	if p.Burden.Busy != nil {
		busy = p.Burden.Busy()
	}
	out.Drained = p.Drain.Wanted() && !busy
	return out
}
