package health_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/health"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
)

const socket = "/var/lib/shoal/store/" + health.SocketFile

// serve runs a process's health socket until the test, or the returned function, ends it.
func serve(t *testing.T, env run.Env, s *health.Server, path string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- health.ServeSocket(env, s, path)(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the socket's task: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// Whoever asks hears every part in the process's words, and an error unless all are well.
func TestTheSocketTellsEveryPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		s := health.New(env)
		s.Set("store", false, "Waiting for the store at 10.0.0.1:2381")
		s.Set("listener", true, "")
		stop := serve(t, env, s, socket)
		synctest.Wait()

		parts, err := health.Ask(t.Context(), env, socket)
		want := []health.Part{{Name: "listener", Well: true}, {Name: "store", Why: "Waiting for the store at 10.0.0.1:2381"}}
		if diff := cmp.Diff(want, parts); diff != "" || !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "1 of 2") {
			t.Errorf("%v\n%s", err, diff)
		}
		s.Set("store", true, "")
		parts, err = health.Ask(t.Context(), env, socket)
		want[1] = health.Part{Name: "store", Well: true}
		if diff := cmp.Diff(want, parts); diff != "" || err != nil {
			t.Errorf("all are well: %v\n%s", err, diff)
		}
		s.Shutdown() // the process stops: its parts are well, and nobody should count on it
		if _, err := health.Ask(t.Context(), env, socket); !errs.Is(err, errs.Unavailable) {
			t.Errorf("while it stops: %v", err)
		}
		stop()
		if _, err := health.Ask(t.Context(), env, socket); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), socket) {
			t.Errorf("after its end: %v", err)
		}
	})
}

// A process that takes a connection and says nothing is not well, and who asks does not wait for ever.
func TestAStuckProcessIsNotWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		l, err := env.Net.Listen(t.Context(), "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		start := time.Now()
		_, err = health.Ask(t.Context(), env, socket)
		if took := time.Since(start); took != 2*time.Second || !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "2s") {
			t.Errorf("after %s: %v", took, err)
		}
	})
}

// A socket that can't be made at first, on a full disk for one, is made later; the process's own work is not touched.
func TestTheSocketIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		l, err := env.Net.Listen(t.Context(), "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		s := health.New(env)
		s.Set("listener", true, "")
		serve(t, env, s, socket)
		synctest.Wait()
		l.Close()
		time.Sleep(10 * time.Second)
		if _, err := health.Ask(t.Context(), env, socket); err != nil {
			t.Error(err)
		}
	})
}

// A process that was killed leaves its socket's file behind; the next one answers at the same place.
func TestADeadSocketIsReplaced(t *testing.T) {
	env := testx.Env(t)
	env.Net = run.Machine("test").Net
	path := filepath.Join(t.TempDir(), health.SocketFile)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Close(fd)); err != nil {
		t.Fatal(err)
	}
	s := health.New(env)
	s.Set("listener", true, "")
	serve(t, env, s, path)
	for deadline := time.Now().Add(3 * time.Second); ; {
		if _, err = health.Ask(t.Context(), env, path); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
