package session

import (
	"context"
	"sync"

	"github.com/shoalproject/shoal/internal/run"
)

// errand is work that a session has now and then. It has a goroutine only while there is some: most of thousands of sessions
// have none, and a goroutine that waits costs as much memory as the session's own data.
type errand struct {
	mu    sync.Mutex // guards below
	due   bool       // asked for while it was under way
	ended <-chan run.Result[struct{}]
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
	e.busy = true
	e.ended = run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		for again := true; again; again = e.again() {
			work(ctx)
		}
		return struct{}{}, nil
	})
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
