// Package testx has what our unit tests share: files in memory, an Env that touches nothing outside the test, a log that
// is shown with the test that fails.
//
// Only tests import it, and the simulation (test/sim), whose disks are its files. It must never be needed by a program.
package testx

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/run"
)

// Env is an Env for a unit test, in or outside a synctest bubble: files and network in memory, a seeded generator, the log
// in the test's output. Now is time.Now, so it is virtual in a bubble.
func Env(tb testing.TB) run.Env {
	tb.Helper()
	return run.Env{
		Host:    "test",
		Log:     Logger(tb),
		Net:     NewNetwork(),
		Files:   NewFiles(),
		Now:     time.Now,
		Ticker:  NewTicker,
		Rand:    run.NewRand(1),
		Metrics: prometheus.NewRegistry(),
		Notify:  func(string) error { return nil },
	}
}

// Logger writes to the test's output, which is shown when it fails or with -v.
func Logger(tb testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{tb}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct{ tb testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.tb.Log(string(bytes.TrimRight(p, "\n")))
	return len(p), nil
}

// NewTicker is the plain ticker of package time, virtual in a bubble.
func NewTicker(d time.Duration) run.Ticker { return ticker{time.NewTicker(d)} }

type ticker struct{ t *time.Ticker }

func (t ticker) C() <-chan time.Time { return t.t.C }
func (t ticker) Stop()               { t.t.Stop() }
