package rpc_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
)

func unavailable(context.Context) error { return errs.New(errs.Unavailable, "no leader") }

func TestRepeatableCallsGoToAnotherMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.serve(t, w.keeper(t, storeRole, "a"), "a:1"), w.serve(t, w.keeper(t, storeRole, "b"), "b:1")
		a.commit, a.list = unavailable, unavailable
		conn := w.dialAll(t, w.keeper(t, schedulerRole, "s"), directoryOf(t, w, "a:1", "b:1", "dead:1"))
		for range 10 {
			if err := commitOnce(t.Context(), conn, "r"); err != nil {
				t.Error(err)
			}
			time.Sleep(100 * time.Millisecond) // both may have refused the first connection: they had just started
		}
		if a.calls.Load() == 0 || b.calls.Load() < 10 {
			t.Errorf("%d calls reached the one, %d the other", a.calls.Load(), b.calls.Load())
		}
		_ = conn.Close()
		a.end(t)
		b.end(t)
	})
}

func TestCallsThatMayNotBeRepeatedAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.serve(t, w.keeper(t, storeRole, "a"), "a:1")
		a.commit = unavailable
		conn := w.dialAll(t, w.keeper(t, schedulerRole, "s"), directoryOf(t, w, "a:1"))
		if err := commitOnce(t.Context(), conn, ""); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "no leader") {
			t.Error(err)
		}
		if n := a.calls.Load(); n != 1 {
			t.Errorf("%d calls, wanted 1", n)
		}
		_ = conn.Close()
		a.end(t)
	})
}

func TestOtherErrorsAreNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.serve(t, w.keeper(t, storeRole, "a"), "a:1")
		a.commit = func(context.Context) error { return errs.New(errs.Conflict, "somebody was first") }
		conn := w.dialAll(t, w.keeper(t, schedulerRole, "s"), directoryOf(t, w, "a:1"))
		if err := commitOnce(t.Context(), conn, "r"); !errs.Is(err, errs.Conflict) || a.calls.Load() != 1 {
			t.Errorf("%v after %d calls", err, a.calls.Load())
		}
		_ = conn.Close()
		a.end(t)
	})
}

func TestRetriesEndWithTheDeadlineAndTellTheLastRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.serve(t, w.keeper(t, storeRole, "a"), "a:1")
		a.commit = unavailable
		conn := w.dialAll(t, w.keeper(t, schedulerRole, "s"), directoryOf(t, w, "a:1"))
		start := time.Now()
		err := commitOnce(t.Context(), conn, "r")
		if d := time.Since(start); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "no leader") || d < 4*time.Second || d > 5*time.Second {
			t.Errorf("%v after %s, wanted the default deadline of 5 s", err, d)
		}
		_ = conn.Close()
		a.end(t)
	})
}

// A refusal in words must reach the caller although the last tries had no answer, and before the caller stops listening.
func TestARefusalInWordsIsNotLostToTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.serve(t, w.keeper(t, storeRole, "a"), "a:1")
		var silent atomic.Bool
		time.AfterFunc(2*time.Second, func() { silent.Store(true) })
		a.commit = func(ctx context.Context) error {
			if !silent.Load() {
				return unavailable(ctx)
			}
			<-ctx.Done()
			return ctx.Err()
		}
		conn := w.dialAll(t, w.keeper(t, schedulerRole, "s"), directoryOf(t, w, "a:1", "dead:1"))
		if err := commitOnce(t.Context(), conn, "r"); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "no leader") {
			t.Errorf("%v, wanted the reason that was told first", err)
		}
		silent.Store(false)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := commitOnce(ctx, conn, "r"); !strings.Contains(err.Error(), "no leader") || ctx.Err() != nil {
			t.Errorf("%v after %s, wanted the reason before the deadline of 1 s", err, time.Since(start))
		}
		_ = conn.Close()
		a.end(t)
	})
}

// A member that takes calls and never answers must not use up the deadline.
func TestASilentMemberIsLeftForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.serve(t, w.keeper(t, storeRole, "a"), "a:1"), w.serve(t, w.keeper(t, storeRole, "b"), "b:1")
		a.commit = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		conn := w.dialAll(t, w.keeper(t, schedulerRole, "s"), directoryOf(t, w, "a:1", "b:1"))
		for range 4 {
			start := time.Now()
			if err := commitOnce(t.Context(), conn, "r"); err != nil {
				t.Errorf("%v after %s", err, time.Since(start))
			}
			time.Sleep(100 * time.Millisecond) // the first connections may have been refused
		}
		if a.calls.Load() == 0 {
			t.Error("the silent one was never asked")
		}
		_ = conn.Close()
		a.end(t)
		b.end(t)
	})
}

func TestClientsFollowTheDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		dir, err := directory.New(w.env.Files, "/empty.json")
		if err != nil {
			t.Fatal(err)
		}
		conn := w.dialAll(t, w.keeper(t, schedulerRole, "s"), dir)
		if err := commitOnce(t.Context(), conn, "r"); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "no member") {
			t.Error(err)
		}
		a, b := w.serve(t, w.keeper(t, storeRole, "a"), "a:1"), w.serve(t, w.keeper(t, storeRole, "b"), "b:1")
		for i, step := range []struct {
			addr string
			m    *member
		}{{"a:1", a}, {"b:1", b}, {"a:1", a}} {
			if err := dir.Set(stores(step.addr)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			before := step.m.calls.Load()
			if err := commitOnce(t.Context(), conn, "r"); err != nil || step.m.calls.Load() != before+1 {
				t.Errorf("step %d: %v", i, err)
			}
		}
		_ = conn.Close()
		a.end(t)
		b.end(t)
	})
}

// Processes start in any order: a call made too early waits for its member.
func TestACallWaitsForAMemberThatStartsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		conn := w.dialAll(t, w.keeper(t, schedulerRole, "s"), directoryOf(t, w, "a:1"))
		done := run.Async(t.Context(), func(ctx context.Context) (struct{}, error) { return struct{}{}, commitOnce(ctx, conn, "") })
		time.Sleep(2 * time.Second)
		a := w.serve(t, w.keeper(t, storeRole, "a"), "a:1")
		start := time.Now()
		if r := <-done; r.Err != nil || time.Since(start) > 1500*time.Millisecond {
			t.Errorf("%v, %s after the member was there", r.Err, time.Since(start))
		}
		_ = conn.Close()
		a.end(t)
	})
}

func TestADeadAddressFailsAtOnce(t *testing.T) {
	w := newWorld(t)
	start := time.Now()
	err := commitOnce(t.Context(), w.dial(t, w.keeper(t, schedulerRole, "s"), "dead:1"), "r")
	if !errs.Is(err, errs.Unavailable) || time.Since(start) > time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}

// A gateway whose handshake takes its time is waited for by a person's client; others leave it for another member.
func TestPeopleWaitForASlowHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.serve(t, w.keeper(t, storeRole, "a"), "a:1")
		lis, err := w.env.Net.Listen(t.Context(), "tcp", "slow:1")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		run.Async(ctx, func(ctx context.Context) (struct{}, error) {
			for {
				conn, err := lis.Accept()
				if err != nil {
					return struct{}{}, err
				}
				run.Async(ctx, func(ctx context.Context) (struct{}, error) {
					return struct{}{}, w.passOn(ctx, conn, "a:1", 3*time.Second)
				})
			}
		})
		k := w.keeper(t, schedulerRole, "s")
		for _, addrs := range [][]string{{"slow:1"}, {"slow:1", "dead:1"}} {
			people, err := rpc.DialForPeople(w.env, k, storeRole, addrs...)
			if err != nil {
				t.Fatal(err)
			}
			call, done := context.WithTimeout(t.Context(), 15*time.Second)
			if err := commitOnce(call, people, "r"); err != nil {
				t.Errorf("%v: %v", addrs, err)
			}
			done()
			_ = people.Close()
		}
		start := time.Now()
		one := w.dial(t, k, "slow:1")
		if err := commitOnce(t.Context(), one, "r"); !errs.Is(err, errs.Unavailable) || time.Since(start) > 2*time.Second {
			t.Errorf("a process: %v after %s", err, time.Since(start))
		}
		_ = one.Close()
		_ = lis.Close()
		cancel()
		a.end(t)
	})
}

// passOn lets a connection wait, and then passes it on.
func (w *world) passOn(ctx context.Context, conn net.Conn, to string, after time.Duration) error {
	defer conn.Close()
	if err := run.Sleep(ctx, after); err != nil {
		return err
	}
	up, err := w.env.Net.Dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer up.Close()
	back := run.Async(ctx, func(context.Context) (struct{}, error) {
		_, err := io.Copy(conn, up)
		_ = conn.Close()
		return struct{}{}, err
	})
	_, err = io.Copy(up, conn)
	_ = up.Close()
	<-back
	return err
}

func TestAPanicIsOneCallsError(t *testing.T) {
	w := newWorld(t)
	a := w.serve(t, w.keeper(t, storeRole, "a"), "a:1")
	a.commit = func(context.Context) error { panic("secret detail") }
	conn := w.dial(t, w.keeper(t, schedulerRole, "s"), "a:1")
	err := patient(t, func() error { return commitOnce(t.Context(), conn, "r") })
	if !errs.Is(err, errs.Internal) || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	a.commit = func(context.Context) error { return nil }
	if err := commitOnce(t.Context(), conn, "r"); err != nil {
		t.Error("after the panic:", err)
	}
}

// tripping is a log with a fault when it is told of a refusal; it keeps what it is told of faults.
type tripping struct {
	slog.Handler
	mu   sync.Mutex
	kept []string
}

func (h *tripping) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "call refused" {
		panic("secret detail")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Level == slog.LevelError {
		text := r.Message
		r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
		h.kept = append(h.kept, text)
	}
	return nil
}

// Also where what panics is beside the handler, and comes back to it as an error: as it lets a stream in, or in a handler's own.
func TestAPanicBesideAHandlerIsOneCallsError(t *testing.T) {
	w := newWorld(t)
	h := &tripping{Handler: w.env.Log.Handler()}
	w.env.Log = slog.New(h)
	a := w.serve(t, w.keeper(t, storeRole, "a"), "a:1")
	a.commit = func(ctx context.Context) error {
		return (<-run.Async(ctx, func(context.Context) (struct{}, error) { panic("secret detail") })).Err
	}
	conn := w.dial(t, w.keeper(t, schedulerRole, "s"), "a:1")
	err := patient(t, func() error { return commitOnce(t.Context(), conn, "r") })
	stranger := w.dial(t, w.keeper(t, operatorRole, "o"), "a:1")
	refused := patient(t, func() error {
		s, err := storev1.NewWatchServiceClient(stranger).Watch(t.Context(), &storev1.WatchRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	})
	for _, err := range []error{err, refused} {
		if !errs.Is(err, errs.Internal) || strings.Contains(err.Error(), "secret") {
			t.Error("the caller hears:", err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.kept) != 2 || !strings.Contains(h.kept[0], "call_test.go") || !strings.Contains(h.kept[1], "rpc.(*Server).begin") {
		t.Errorf("the log has %q", h.kept)
	}
}

func TestErrorsAndFaultsCrossTheWire(t *testing.T) {
	w := newWorld(t)
	a := w.serve(t, w.keeper(t, storeRole, "a"), "a:1")
	a.commit = func(context.Context) error { return errs.Faults("commit", errs.Fault{Field: "x", Reason: "wrong"}) }
	conn := w.dial(t, w.keeper(t, schedulerRole, "s"), "a:1")
	err := patient(t, func() error { return commitOnce(t.Context(), conn, "r") })
	if f := errs.FaultsOf(err); !errs.Is(err, errs.Invalid) || len(f) != 1 || f[0].Field != "x" {
		t.Error(err)
	}
}

func TestTooLargeARequestIsRefused(t *testing.T) {
	w := newWorld(t)
	a := w.serve(t, w.keeper(t, storeRole, "a"), "a:1")
	conn := w.dial(t, w.keeper(t, schedulerRole, "s"), "a:1")
	if err := patient(t, func() error { return commitOnce(t.Context(), conn, strings.Repeat("x", 3<<20)) }); err != nil {
		t.Error("3 MiB:", err)
	}
	if err := commitOnce(t.Context(), conn, strings.Repeat("x", 5<<20)); !errs.Is(err, errs.Exhausted) || a.calls.Load() != 1 {
		t.Error("5 MiB:", err)
	}
}

func TestAStopLetsCallsFinishAndTellsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.serve(t, w.keeper(t, storeRole, "a"), "a:1")
		a.commit = func(context.Context) error { time.Sleep(2 * time.Second); return nil }
		synctest.Wait()
		conn := w.dial(t, w.keeper(t, schedulerRole, "s"), "a:1")
		stream := watch(t, conn)
		call := run.Async(t.Context(), func(ctx context.Context) (struct{}, error) { return struct{}{}, commitOnce(ctx, conn, "r") })
		synctest.Wait()
		start := time.Now()
		a.stop()
		if cause := <-a.watched; !errs.Is(cause, errs.Unavailable) || time.Since(start) > 0 {
			t.Errorf("the stream was told %v after %s", cause, time.Since(start))
		}
		if _, err := stream.Recv(); !errs.Is(err, errs.Unavailable) {
			t.Errorf("the stream's client: %v", err)
		}
		if r := <-call; r.Err != nil {
			t.Errorf("the call: %v", r.Err)
		}
		a.end(t)
		if d := time.Since(start); d > 2500*time.Millisecond {
			t.Errorf("the stop took %s", d)
		}
		_ = conn.Close()
	})
}

func TestAStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.serve(t, w.keeper(t, storeRole, "a"), "a:1")
		a.commit = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		synctest.Wait()
		conn := w.dial(t, w.keeper(t, schedulerRole, "s"), "a:1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		call := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, commitOnce(ctx, conn, "r") })
		synctest.Wait()
		start := time.Now()
		a.end(t)
		if d := time.Since(start); d > 3500*time.Millisecond {
			t.Errorf("the stop took %s", d)
		}
		if r := <-call; r.Err == nil {
			t.Error("a call that never ended was answered")
		}
		_ = conn.Close()
	})
}

func TestTheSocketsOfAMachineWorkToo(t *testing.T) {
	w := newWorld(t)
	w.env.Net = run.Machine("test").Net
	w.env.Metrics = testx.Env(t).Metrics
	a := w.serve(t, w.keeper(t, storeRole, "a"), "127.0.0.1:28377")
	conn := w.dialAll(t, w.keeper(t, schedulerRole, "s"), directoryOf(t, w, "127.0.0.1:28377"))
	if err := commitOnce(t.Context(), conn, "r"); err != nil || a.calls.Load() != 1 {
		t.Error(err)
	}
	if _, ok := rpc.PeerOf(t.Context()); ok {
		t.Error("a context of no call has a peer")
	}
}
