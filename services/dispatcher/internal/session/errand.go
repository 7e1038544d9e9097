package session

import (
	"context"
	"sync"

	"github.com/shoalproject/shoal/internal/run"
)

// errand is work that a session has now and then. It has a goroutine only while there is some: most of thousands of sessions
// have none, and a goroutine that waits costs as much memory as the session's own data.
type errand struct {
	failed func(error) // hears that the work panicked

	mu    sync.Mutex // guards below
	due   bool       // asked for while it was under way
	ended chan struct{}
	busy  bool
}

// start has work done beside the caller: at once, or once more after what is under way. Work must return when ctx ends.
func (e *errand) start(ctx context.Context, work func(context.Context)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy {
		e.due = true
		return
	}
	ended := make(chan struct{})
	e.busy, e.ended = true, ended
	run.Beside(ctx, func(ctx context.Context) error {
		for again := true; again; again = e.again() {
			work(ctx)
		}
		return nil
	}, func(err error) {
		defer close(ended)
		if err != nil {
			e.failed(err) // first, so that what is done again finds the session ended
			e.abandon()
		}
	})
}

// abandon lets the errand be done again after work that did not come to its end.
func (e *errand) abandon() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy, e.due = false, false
}

func (e *errand) again() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy, e.due = e.due, false
	return e.busy
}

// wait returns when nothing is under way. Its context has ended.
func (e *errand) wait() {
	e.mu.Lock()
	ended := e.ended
	e.mu.Unlock()
	if ended != nil {
		<-ended
	}
}
