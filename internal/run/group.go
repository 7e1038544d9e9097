package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/beside"
)

// StopTimeout is how long a Group's tasks have to end after they were told to.
const StopTimeout = 10 * time.Second

// Task is what a Group runs: it blocks, and returns when its context ends.
type Task func(ctx context.Context) error

// Group runs a process's named tasks: the first error cancels all; a panic is an error; who does not stop is named.
type Group struct {
	log *slog.Logger

	mu      sync.Mutex      // guards all below
	ctx     context.Context // of the tasks; nil until Wait
	cancel  context.CancelFunc
	waiting []namedTask // given before Wait
	running map[int]string
	next    int
	err     error
	idle    chan struct{} // closed and replaced never: made by Wait, closed when the last task has ended
}

type namedTask struct {
	name string
	f    Task
}

// PanicError is a panic in a task, with where it was.
type PanicError = beside.PanicError

// HangError names the tasks that had not ended StopTimeout after they were told to.
type HangError struct{ Tasks []string }

func (h *HangError) Error() string {
	return fmt.Sprintf("still running %s after the stop: %s", StopTimeout, strings.Join(h.Tasks, ", "))
}

// NewGroup makes an empty group. Nothing runs until Wait, so a caller may return early without leaving a task behind.
func NewGroup(log *slog.Logger) *Group {
	return &Group{log: log, running: map[int]string{}}
}

// Go adds a task. Before Wait it is noted and starts with Wait; during Wait it starts at once; after the group has been
// told to stop it is started with a context that has ended.
func (g *Group) Go(name string, f func(context.Context) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx == nil {
		g.waiting = append(g.waiting, namedTask{name, f})
		return
	}
	g.start(namedTask{name, f})
}

// start needs the lock.
func (g *Group) start(t namedTask) {
	id := g.next
	g.next++
	g.running[id] = t.name
	ctx := g.ctx
	go beside.Guard(ctx, t.f, func(err error) { g.ended(ctx, id, t.name, err) })
}

// Wait runs the tasks until all have ended, and returns the first error, which carries its task's name. The end of ctx
// tells all to stop; an error that is only the context's end is then no error, so a graceful stop returns nil. Tasks that
// have not ended StopTimeout later are named in a *HangError, and left behind.
func (g *Group) Wait(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := g.begin(ctx, cancel)
	select {
	case <-idle:
		return g.result(nil)
	case <-ctx.Done():
	}
	patience := time.NewTimer(StopTimeout)
	defer patience.Stop()
	select {
	case <-idle:
		return g.result(nil)
	case <-patience.C:
		return g.result(idle)
	}
}

func (g *Group) begin(ctx context.Context, cancel context.CancelFunc) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ctx, g.cancel, g.idle = ctx, cancel, make(chan struct{})
	for _, t := range g.waiting {
		g.start(t)
	}
	if len(g.waiting) == 0 {
		close(g.idle)
	}
	g.waiting = nil
	return g.idle
}

func (g *Group) ended(ctx context.Context, id int, name string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.running, id)
	if len(g.running) == 0 {
		defer close(g.idle)
	}
	if err == nil || (ctx.Err() != nil && isContextEnd(err)) {
		return
	}
	err = fmt.Errorf("%s: %w", name, err)
	if g.err == nil {
		g.err = err
		g.cancel()
		return
	}
	// Only the first is returned: what follows it is mostly its echo, but must not be lost.
	g.log.Warn("task failed while stopping", "task", name, "error", err)
}

// result adds to the first error the names of those that still run, unless idle is nil or closed by now.
func (g *Group) result(idle <-chan struct{}) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if idle == nil || len(g.running) == 0 {
		return g.err
	}
	hang := &HangError{}
	for _, name := range g.running {
		hang.Tasks = append(hang.Tasks, name)
	}
	slices.Sort(hang.Tasks)
	return errors.Join(g.err, hang)
}

func isContextEnd(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
