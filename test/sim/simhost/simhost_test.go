package simhost_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/test/sim/simdisk"
	"github.com/shoalproject/shoal/test/sim/simhost"
)

func bubble(t *testing.T, f func(t *testing.T, w *simhost.World)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, simhost.New(t, 7)) })
}

func start(t *testing.T, h *simhost.Host, name string, f simhost.Run) {
	t.Helper()
	if err := h.Start(name, f); err != nil {
		t.Fatal(err)
	}
}

// echo is a small server: it says when it is ready, answers what it hears, and ends with its context.
func echo(ctx context.Context, env run.Env) error {
	l, err := env.Net.Listen(ctx, "tcp", ":7")
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	if err := env.Notify("READY=1\nSTATUS=echoing"); err != nil {
		return err
	}
	env.Log.Info("listening")
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		go func() { _, _ = io.Copy(c, c) }()
	}
}

func ask(t *testing.T, from *simhost.Host, to string) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	c, err := from.Net.Dial(ctx, "tcp", to+":7")
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err = c.Write([]byte("hi")); err == nil {
		_, err = io.ReadFull(c, make([]byte, 2))
	}
	_ = c.SetDeadline(time.Time{})
	return c, err
}

func TestProcessGetsItsHostsEnv(t *testing.T) {
	bubble(t, func(t *testing.T, w *simhost.World) {
		m1, m2 := w.Host("m1", "10.0.0.1"), w.Host("m2")
		m1.SetClock(-90 * time.Minute)
		start(t, m1, "echo", echo)
		m1.Await(t, "echo", time.Second)
		c, err := ask(t, m2, "m1")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if m1.Status("echo") != "echoing" || !strings.Contains(m1.Log(), "listening") {
			t.Errorf("status %q, log %s", m1.Status("echo"), m1.Log())
		}
		var late time.Duration
		start(t, m1, "clock", func(_ context.Context, env run.Env) error { late = time.Since(env.Now()); return nil })
		synctest.Wait()
		if late != 90*time.Minute || len(m1.Errors()) > 0 {
			t.Errorf("late by %s, errors %v", late, m1.Errors())
		}
		if diff := cmp.Diff([]string{"echo"}, m1.Running()); diff != "" {
			t.Error(diff)
		}
		if m1.Start("echo", echo) == nil {
			t.Error("a second process of the same name started")
		}
	})
}

func TestStopIsGraceful(t *testing.T) {
	bubble(t, func(t *testing.T, w *simhost.World) {
		m1 := w.Host("m1")
		start(t, m1, "p", func(ctx context.Context, env run.Env) error {
			<-ctx.Done()
			return env.Files.Write("farewell", []byte("written after the stop"), 0o600)
		})
		if err := m1.Stop("p"); err != nil {
			t.Fatal(err)
		}
		if _, err := m1.Disk.Files().Read("farewell"); err != nil {
			t.Error(err)
		}
	})
}

func TestCrashLeavesNoTimeForCourtesy(t *testing.T) {
	bubble(t, func(t *testing.T, w *simhost.World) {
		m1, m2 := w.Host("m1"), w.Host("m2")
		var order []string
		results := make(chan error, 3)
		start(t, m2, "echo", echo)
		synctest.Wait() // it listens
		start(t, m1, "p", func(ctx context.Context, env run.Env) error {
			if err := env.Files.Write("before", nil, 0o600); err != nil {
				return err
			}
			c, err := env.Net.Dial(ctx, "tcp", "m2:7")
			if err != nil {
				return err
			}
			m1.OnDeath("p", func() { order = append(order, "storage dead") })
			<-ctx.Done()
			order = append(order, "context ended")
			results <- env.Files.Write("after", nil, 0o600)
			_, err = c.Write([]byte("goodbye"))
			results <- err
			_, err = env.Net.Dial(context.Background(), "tcp", "m2:7")
			results <- err
			return errors.New("the dead say anything")
		})
		synctest.Wait()
		m1.Crash()
		for _, want := range []error{simdisk.ErrDead, net.ErrClosed, net.ErrClosed} {
			if err := <-results; !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
		if diff := cmp.Diff([]string{"storage dead", "context ended"}, order); diff != "" {
			t.Error(diff)
		}
		names, _ := m1.Disk.Files().List(".")
		if !slices.Equal(names, []string{"before"}) || len(m1.Errors()) > 0 {
			t.Errorf("disk %q, errors %v", names, m1.Errors())
		}
		if err := m1.Start("p", echo); err == nil {
			t.Error("a process started on a host that is down")
		}
	})
}

func TestRestartBringsBackWhatRan(t *testing.T) {
	bubble(t, func(t *testing.T, w *simhost.World) {
		m1, m2 := w.Host("m1"), w.Host("m2")
		for _, name := range []string{"first", "stopped"} {
			start(t, m1, name, func(ctx context.Context, env run.Env) error { <-ctx.Done(); return ctx.Err() })
		}
		start(t, m1, "echo", echo)
		if err := m1.Stop("stopped"); !errors.Is(err, context.Canceled) {
			t.Errorf("stop: %v", err)
		}
		m1.Crash()
		if _, err := ask(t, m2, "m1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial to a host that is down: %v", err)
		}
		m1.Restart()
		m1.Await(t, "echo", time.Second)
		if diff := cmp.Diff([]string{"first", "echo"}, m1.Running()); diff != "" {
			t.Error(diff)
		}
		if _, err := ask(t, m2, "m1"); err != nil {
			t.Error(err)
		}
		if len(m1.Errors()) > 0 {
			t.Errorf("errors %v", m1.Errors())
		}
	})
}

func TestKillIsOfOneProcess(t *testing.T) {
	bubble(t, func(t *testing.T, w *simhost.World) {
		m1, m2 := w.Host("m1"), w.Host("m2")
		start(t, m1, "echo", echo)
		start(t, m1, "other", func(ctx context.Context, env run.Env) error { <-ctx.Done(); return nil })
		synctest.Wait()
		c, err := ask(t, m2, "m1")
		if err != nil {
			t.Fatal(err)
		}
		m1.Kill("echo")
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the peer of a killed process: %v", err)
		}
		if _, err := ask(t, m2, "m1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v", err)
		}
		if diff := cmp.Diff([]string{"other"}, m1.Running()); diff != "" {
			t.Error(diff)
		}
		if err := m1.StartAgain("echo"); err != nil {
			t.Fatal(err)
		}
		m1.Await(t, "echo", time.Second)
	})
}

func TestFailuresAndPanicsAreCollectedAndRestarted(t *testing.T) {
	bubble(t, func(t *testing.T, w *simhost.World) {
		m1 := w.Host("m1")
		m1.AutoRestart(time.Second)
		tries := 0
		start(t, m1, "p", func(ctx context.Context, env run.Env) error {
			tries++
			switch tries {
			case 1:
				return errors.New("no luck")
			case 2:
				panic("boom")
			}
			<-ctx.Done()
			return ctx.Err()
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		got := m1.Errors()
		if tries != 3 || len(got) != 2 || got[0].Error() != "p: no luck" || got[1].Error() != "p: panic: boom" {
			t.Errorf("%d tries, errors %v", tries, got)
		}
		if !strings.Contains(m1.Log(), "simhost_test.go") {
			t.Error("the panic's stack is not in the log")
		}
	})
}

func TestPauseHoldsTicksAndDeliversOne(t *testing.T) {
	bubble(t, func(t *testing.T, w *simhost.World) {
		m1 := w.Host("m1")
		var ticks []time.Duration
		begin := time.Now()
		start(t, m1, "p", func(ctx context.Context, env run.Env) error {
			tick := env.Ticker(time.Second)
			defer tick.Stop()
			for {
				select {
				case <-tick.C():
					ticks = append(ticks, time.Since(begin))
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
		time.Sleep(2500 * time.Millisecond)
		m1.Pause()
		time.Sleep(5 * time.Second)
		m1.Resume() // at 7.5 s
		time.Sleep(2 * time.Second)
		synctest.Wait()
		want := []time.Duration{time.Second, 2 * time.Second, 7500 * time.Millisecond, 8 * time.Second, 9 * time.Second}
		if diff := cmp.Diff(want, ticks); diff != "" {
			t.Error(diff)
		}
		m1.Crash()
		time.Sleep(time.Minute)
		if len(ticks) != len(want) {
			t.Error("a dead process's ticker ticks")
		}
	})
}

func TestSameSeedSameChoices(t *testing.T) {
	draw := func(names ...string) (got uint64) {
		bubble(t, func(t *testing.T, w *simhost.World) {
			for _, name := range names {
				w.Host(name)
			}
			start(t, w.Host("m1"), "p", func(_ context.Context, env run.Env) error { got = env.Rand.Uint64(); return nil })
			synctest.Wait()
		})
		return got
	}
	if a, b := draw("m1"), draw("m0", "m1"); a != b {
		t.Errorf("another host has changed this one's choices: %d, %d", a, b)
	}
}
