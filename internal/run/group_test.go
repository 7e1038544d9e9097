package run_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
)

func untilDone(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// group runs the test in a bubble with a fresh group.
func group(t *testing.T, f func(t *testing.T, g *run.Group)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, run.NewGroup(testx.Logger(t))) })
}

func TestGroupFirstErrorCancelsAll(t *testing.T) {
	group(t, func(t *testing.T, g *run.Group) {
		g.Go("done early", func(context.Context) error { return nil })
		g.Go("serve", untilDone)
		g.Go("lease", func(ctx context.Context) error {
			if err := run.Sleep(ctx, time.Minute); err != nil {
				return err
			}
			return io.ErrUnexpectedEOF
		})
		g.Go("echo", func(ctx context.Context) error { <-ctx.Done(); return errors.New("a later error") })
		start := time.Now()
		err := g.Wait(t.Context())
		if !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != "lease: unexpected EOF" || time.Since(start) != time.Minute {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
	})
}

func TestGroupGracefulStopIsNoError(t *testing.T) {
	group(t, func(t *testing.T, g *run.Group) {
		g.Go("serve", untilDone)
		g.Go("flush", func(ctx context.Context) error { <-ctx.Done(); return run.Sleep(context.Background(), 9*time.Second) })
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Hour, cancel)
		if err := g.Wait(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestGroupErrorWhileStoppingIsKept(t *testing.T) {
	group(t, func(t *testing.T, g *run.Group) {
		g.Go("flush", func(ctx context.Context) error { <-ctx.Done(); return errors.New("disk full") })
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Hour, cancel)
		if err := g.Wait(ctx); err == nil || err.Error() != "flush: disk full" {
			t.Error(err)
		}
	})
}

func TestGroupCapturesPanicWithStack(t *testing.T) {
	group(t, func(t *testing.T, g *run.Group) {
		g.Go("other", untilDone)
		g.Go("bad", func(context.Context) error { var m map[string]int; m["x"] = 1; return nil }) //nolint:govet,staticcheck // panics on purpose
		err := g.Wait(t.Context())
		p, ok := errors.AsType[*run.PanicError](err)
		if !ok || !strings.Contains(string(p.Stack), "group_test.go") || !strings.HasPrefix(err.Error(), "bad: panic: ") {
			t.Errorf("got %v", err)
		}
	})
	group(t, func(t *testing.T, g *run.Group) {
		g.Go("leaver", func(context.Context) error { runtime.Goexit(); return nil })
		if err := g.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "leaver") {
			t.Errorf("Goexit: %v", err)
		}
	})
}

func TestGroupNamesWhoHangs(t *testing.T) {
	group(t, func(t *testing.T, g *run.Group) {
		release := make(chan struct{})
		defer close(release)
		g.Go("good", untilDone)
		g.Go("stuck b", func(context.Context) error { <-release; return nil })
		g.Go("stuck a", func(context.Context) error { <-release; return nil })
		g.Go("cause", func(context.Context) error { return io.ErrClosedPipe })
		start := time.Now()
		err := g.Wait(t.Context())
		hang, ok := errors.AsType[*run.HangError](err)
		if !ok || !errors.Is(err, io.ErrClosedPipe) || time.Since(start) != 10*time.Second {
			t.Fatalf("after %s: %v", time.Since(start), err)
		}
		if diff := cmp.Diff([]string{"stuck a", "stuck b"}, hang.Tasks); diff != "" {
			t.Error(diff)
		}
	})
}

func TestGroupStartsWithWaitAndTakesTasksWhileItRuns(t *testing.T) {
	group(t, func(t *testing.T, g *run.Group) {
		var started atomic.Int32
		g.Go("outer", func(ctx context.Context) error {
			started.Add(1)
			g.Go("inner", func(ctx context.Context) error { started.Add(1); return untilDone(ctx) })
			return nil
		})
		synctest.Wait()
		if started.Load() != 0 {
			t.Error("a task runs before Wait")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := g.Wait(ctx); err != nil || started.Load() != 2 {
			t.Errorf("%d started, %v", started.Load(), err)
		}
	})
	group(t, func(t *testing.T, g *run.Group) {
		if err := g.Wait(t.Context()); err != nil { // nothing to wait for
			t.Error(err)
		}
	})
}

func TestSpawner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		s := run.NewSpawner(slog.New(slog.NewTextHandler(&text, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		if err := s.Wait(ctx); err != nil {
			t.Error(err)
		}
		s.Go(ctx, "quick", func(context.Context) error { return io.ErrClosedPipe })
		s.Go(ctx, "long", untilDone)
		short, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		if err := s.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait with a task running: %v", err)
		}
		ended := run.Async(t.Context(), func(context.Context) (struct{}, error) { return struct{}{}, s.Run(ctx) })
		synctest.Wait()
		select {
		case r := <-ended:
			t.Fatalf("ended early: %v", r.Err)
		default:
		}
		cancel()
		if r := <-ended; r.Err != nil {
			t.Error(r.Err)
		}
		if got := text.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "task=quick") {
			t.Errorf("log %q", got)
		}
	})
}

func TestSpawnerFailsAtAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run.NewSpawner(slog.New(slog.DiscardHandler))
		s.Go(t.Context(), "bad", func(context.Context) error { panic("boom") })
		if _, ok := errors.AsType[*run.PanicError](s.Run(t.Context())); !ok {
			t.Error("the panic is lost")
		}
	})
}

func TestEachReturnsAllErrorsAndKeepsTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		err := run.Each(t.Context(), 2, []int{1, 2, 3, 4, 5}, func(ctx context.Context, i int) error {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			if err := run.Sleep(ctx, time.Second); err != nil {
				return err
			}
			switch i {
			case 2:
				return errors.New("two")
			case 4:
				panic("four")
			}
			return nil
		})
		if err == nil || err.Error() != "two\npanic: four" || most.Load() != 2 {
			t.Errorf("%d at a time, %v", most.Load(), err)
		}
		if err := run.Each(t.Context(), 0, nil, func(context.Context, int) error { return io.EOF }); err != nil {
			t.Error(err)
		}
	})
}
