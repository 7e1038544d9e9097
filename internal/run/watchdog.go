package run

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Probe asks one part of a process whether it still comes round. Ask returns nil as soon as the part has answered, and an
// error when ctx ended before. A part that waits for something outside the process must answer all the same: a process is
// not started anew because somebody else is away.
type Probe struct {
	Name string
	Ask  func(ctx context.Context) error
}

// Watchdog makes a task that tells the init system, three times in each Env.Watchdog, that all parts answer. While one does
// not, it is named in the log and the init system is told nothing: it then ends the process, which leaves every
// goroutine's stack in the log, and starts it anew. Where nobody waits for a sign of life it does nothing.
func Watchdog(env Env, probes []Probe) func(context.Context) error {
	return func(ctx context.Context) error {
		if env.Watchdog <= 0 || env.Notify == nil {
			return nil
		}
		// Two rounds in a row may take their full time, and the sign still comes in time.
		round := env.Watchdog / 3
		t := time.NewTicker(round)
		defer t.Stop()
		for {
			if err := askAll(ctx, round, probes); ctx.Err() != nil {
				return nil
			} else if err != nil {
				env.Log.Error("a part of this process does not answer, the init system is not told that it lives", "error", err)
			} else if err := env.Notify("WATCHDOG=1"); err != nil {
				env.Log.Warn("init system was not told", "error", err)
			}
			select {
			case <-t.C:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// askAll does not wait for a probe that heeds no context: that is just what it looks for.
func askAll(ctx context.Context, limit time.Duration, probes []Probe) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answers := make([]<-chan Result[struct{}], len(probes))
	for i, p := range probes {
		answers[i] = Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, p.Ask(ctx) })
	}
	for i, answer := range answers {
		select {
		case r := <-answer:
			if r.Err != nil {
				return fmt.Errorf("%s: %w", probes[i].Name, r.Err)
			}
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", probes[i].Name, ctx.Err())
		}
	}
	return nil
}

// Pulse lets a loop answer a Probe: it selects on C beside its work, and goes on.
type Pulse struct{ c chan struct{} }

// NewPulse makes one for one loop.
func NewPulse() *Pulse { return &Pulse{c: make(chan struct{})} }

// C is what the loop selects on. A nil Pulse never asks.
func (p *Pulse) C() <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.c
}

// Ask waits until the loop has come round, or ctx ends.
func (p *Pulse) Ask(ctx context.Context) error {
	select {
	case p.c <- struct{}{}: // taken: nothing else is asked of the loop
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watchdogPeriod is what the init system has said by sd_watchdog_enabled(3): microseconds, for the process with that id.
func watchdogPeriod(getenv func(string) string, pid int) time.Duration {
	if want := getenv("WATCHDOG_PID"); want != "" && want != strconv.Itoa(pid) {
		return 0
	}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

func machineWatchdog() time.Duration { return watchdogPeriod(os.Getenv, os.Getpid()) }
