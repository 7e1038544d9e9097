package run

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// signs counts what the init system hears.
func watched(t *testing.T, d time.Duration, probes ...Probe) (signs *int, log *bytes.Buffer) {
	signs, log = new(int), new(bytes.Buffer)
	env := Env{Log: slog.New(slog.NewTextHandler(log, nil)), Watchdog: 30 * time.Second, Notify: func(state string) error {
		if state == "WATCHDOG=1" {
			*signs++
		}
		return nil
	}}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := Watchdog(env, probes)(ctx); err != nil {
		t.Error(err)
	}
	return signs, log
}

func TestWatchdogTellsWhileAllPartsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pulse := NewPulse()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { // a loop with other work to do
			work := time.NewTicker(time.Second)
			defer work.Stop()
			for {
				select {
				case <-pulse.C():
				case <-work.C:
				case <-ctx.Done():
					return
				}
			}
		}()
		signs, log := watched(t, time.Minute+time.Second, Probe{"loop", pulse.Ask})
		if *signs != 7 || log.Len() > 0 {
			t.Errorf("%d signs of life in a minute, wanted 7; log: %s", *signs, log)
		}
	})
}

func TestWatchdogIsSilentWhileAPartHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		defer close(end)
		deaf := func(context.Context) error { <-end; return nil } // a lock that is never given back heeds no context
		signs, log := watched(t, time.Minute+time.Second,
			Probe{"well", func(context.Context) error { return nil }}, Probe{"stuck", deaf})
		if *signs != 0 || !strings.Contains(log.String(), "stuck") {
			t.Errorf("%d signs of life with a stuck part; log: %s", *signs, log)
		}
	})
}

func TestWatchdogPeriod(t *testing.T) {
	for _, r := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"60000000", "", time.Minute},
		{"60000000", "7", time.Minute},
		{"60000000", "8", 0}, // another process's: a parent left it in the environment
		{"", "", 0},
		{"soon", "", 0},
		{"-1", "", 0},
	} {
		got := watchdogPeriod(func(name string) string {
			return map[string]string{"WATCHDOG_USEC": r.usec, "WATCHDOG_PID": r.pid}[name]
		}, 7)
		if got != r.want {
			t.Errorf("%q for %q: %s, wanted %s", r.usec, r.pid, got, r.want)
		}
	}
}
