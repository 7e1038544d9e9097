package hollow

import (
	"context"
	"errors"
	"log/slog"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// Machines that have lost their sessions come back a few at a time: the next when one has a session again, or is late.
func TestMachinesComeBackInTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		back := make(chan int, 2*backAtOnce)
		voices := make([]*slog.Logger, 2*backAtOnce)
		for i := range voices {
			voices[i] = slog.New(newVoice(turns))
			go func() {
				voices[i].Info(sessionEnded)
				back <- i
			}()
		}
		synctest.Wait()
		if len(back) != backAtOnce {
			t.Fatalf("%d at once, want %d", len(back), backAtOnce)
		}
		voices[<-back].Info(sessionOpened)
		synctest.Wait()
		if got := len(back) + 1; got != backAtOnce+1 {
			t.Fatalf("%d when one is back, want %d", got, backAtOnce+1)
		}
		time.Sleep(backLimit)
		synctest.Wait()
		if got := len(back) + 1; got != len(voices) {
			t.Fatalf("%d when the others are late, want all %d", got, len(voices))
		}
	})
}

// At the end of a fleet nobody waits for a turn.
func TestNobodyWaitsAtTheEnd(t *testing.T) {
	turns := newTurns()
	for range backAtOnce {
		defer turns.wait(time.Hour)()
	}
	turns.end()
	turns.wait(time.Hour)()
}

// An agent learns at once that there is no meshproxy, and does not ask again and again.
func TestMeshproxyIsAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := make(chan struct{})
		a := &absent{over: over}
		if _, err := a.dial(t.Context(), "unix", "mesh.sock"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("first: %v, want %v", err, syscall.ECONNREFUSED)
		}
		tries := make(chan struct{}, 2)
		limited, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stopped, stop := context.WithCancel(t.Context())
		for _, ctx := range []context.Context{limited, stopped} {
			go func() {
				_, _ = a.dial(ctx, "unix", "mesh.sock")
				tries <- struct{}{}
			}()
		}
		time.Sleep(time.Minute)
		if len(tries) != 0 {
			t.Fatal("a later try has ended")
		}
		stop()
		<-tries // its agent has stopped
		close(over)
		<-tries
	})
}
