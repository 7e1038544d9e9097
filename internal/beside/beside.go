// Package beside runs functions beside their caller.
//
// It owns the goroutines that it starts until their functions return; none of them ends a process by a panic. It imports nothing but the
// standard library and must stay so: a program of which there are hundreds on a machine links it without all that package run, which
// is built on it, needs. Its functions are safe for concurrent use.
package beside

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// PanicError is a panic in a function, with where it was.
type PanicError struct {
	Value any
	Stack []byte
}

// Error is the panic's value; the stack is for the log and not for peers.
func (p *PanicError) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// Guard calls f, and then done with its error, also when f panics, or leaves by runtime.Goexit (as testing's FailNow does),
// after which the goroutine is gone and nobody else could tell.
func Guard(ctx context.Context, f func(ctx context.Context) error, done func(error)) {
	err := errors.New("ended by runtime.Goexit")
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
		done(err)
	}()
	err = f(ctx)
}

// Each calls f for every item, at most limit at a time (all at once if limit < 1), and waits for all. One error stops no
// other call; all are returned together, in the order of the items.
func Each[T any](ctx context.Context, limit int, items []T, f func(ctx context.Context, item T) error) error {
	if limit < 1 || limit > len(items) {
		limit = len(items)
	}
	errs := make([]error, len(items))
	places := make(chan struct{}, max(limit, 1))
	var wg sync.WaitGroup
	for i, item := range items {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			Guard(ctx, func(ctx context.Context) error { return f(ctx, item) }, func(err error) { errs[i] = err })
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Result is what an Async call has come to.
type Result[T any] struct {
	Value T
	Err   error
}

// Async calls f beside the caller. The channel gets exactly one result and is never closed; nobody has to take it. F must
// return when ctx ends. A panic is the result's error.
func Async[T any](ctx context.Context, f func(ctx context.Context) (T, error)) <-chan Result[T] {
	out := make(chan Result[T], 1)
	var r Result[T]
	go Guard(ctx, func(ctx context.Context) (err error) {
		r.Value, err = f(ctx)
		return err
	}, func(err error) {
		r.Err = err
		out <- r
	})
	return out
}

// Sleep waits for the duration or the context's end, whose error it returns.
func Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
