package run

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/shoalproject/shoal/internal/beside"
)

// Spawner runs tasks that come and go while a service lives: one a connection, one a session. An error of a task is
// logged and concerns nobody else; a panic fails the Spawner, and with it the process.
type Spawner struct {
	log *slog.Logger

	mu    sync.Mutex // guards all below
	count int
	panic error
	idle  chan struct{} // closed when count falls to 0; nil while nobody waits
	fail  chan struct{} // closed at the first panic
}

// NewSpawner makes an empty one.
func NewSpawner(log *slog.Logger) *Spawner {
	return &Spawner{log: log, fail: make(chan struct{})}
}

// Go starts f at once. It must return when ctx ends.
func (s *Spawner) Go(ctx context.Context, name string, f func(context.Context) error) {
	s.mu.Lock()
	s.count++
	s.mu.Unlock()
	go beside.Guard(ctx, f, func(err error) { s.ended(ctx, name, err) })
}

func (s *Spawner) ended(ctx context.Context, name string, err error) {
	p, panicked := errors.AsType[*PanicError](err)
	switch {
	case panicked:
		s.log.Error("task panicked", "task", name, "panic", p.Value, "stack", string(p.Stack))
	case err != nil && !(ctx.Err() != nil && isContextEnd(err)):
		s.log.Warn("task failed", "task", name, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if panicked && s.panic == nil {
		s.panic = err
		close(s.fail)
	}
	s.count--
	if s.count == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// Wait blocks until no task runs, or ctx ends (whose error it returns). It returns the first panic, if there was one.
func (s *Spawner) Wait(ctx context.Context) error {
	if idle := s.whenIdle(); idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.failure()
}

// Run is the Spawner as a task of a Group: it blocks until ctx ends and then until every task has ended (theirs must end
// with ctx), or fails at the first panic.
func (s *Spawner) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-s.fail:
		return s.failure()
	}
	if idle := s.whenIdle(); idle != nil {
		<-idle
	}
	return s.failure()
}

// whenIdle is nil if no task runs now.
func (s *Spawner) whenIdle() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == 0 {
		return nil
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	return s.idle
}

func (s *Spawner) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.panic
}

// Each calls f for every item, at most limit at a time (all at once if limit < 1), and waits for all. One error stops no
// other call; all are returned together, in the order of the items.
func Each[T any](ctx context.Context, limit int, items []T, f func(ctx context.Context, item T) error) error {
	return beside.Each(ctx, limit, items, f)
}

// Beside calls f beside the caller, and then ended with its error, also when f panics (a *PanicError). F must return when ctx
// ends.
func Beside(ctx context.Context, f Task, ended func(error)) {
	go beside.Guard(ctx, f, ended)
}

// Result is what an Async call has come to.
type Result[T any] = beside.Result[T]

// Async calls f beside the caller. The channel gets exactly one result and is never closed; nobody has to take it. F must
// return when ctx ends. A panic is the result's error.
func Async[T any](ctx context.Context, f func(ctx context.Context) (T, error)) <-chan Result[T] {
	return beside.Async(ctx, f)
}
