package hollow

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// Who finds no place waits for one, and gives up as at a full server when its time is too short for a handshake.
func TestGateHoldsWhoWaits(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := make(gate, 1)
	first, err := g.dial(t.Context(), net.Dialer{}, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), inTime/4)
	defer cancel()
	if _, err := g.dial(short, net.Dialer{}, "tcp", l.Addr().String()); !errors.Is(err, syscall.EAGAIN) {
		t.Fatalf("without a place: %v, want %v", err, syscall.EAGAIN)
	}
	second := make(chan error, 1)
	go func() {
		conn, err := g.dial(t.Context(), net.Dialer{}, "tcp", l.Addr().String())
		if err == nil {
			err = conn.Close()
		}
		second <- err
	}()
	_ = first.Close()
	if err := <-second; err != nil {
		t.Fatalf("after the first has left: %v", err)
	}
}

// A machine that was let in late would lose what was done for it.
func TestGateLetsNobodyInTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := make(gate, 1)
		g <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			time.Sleep(time.Second - inTime/2)
			<-g // a place, with too little time left
		}()
		if _, err := g.dial(ctx, net.Dialer{}, "tcp", "192.0.2.1:1"); !errors.Is(err, syscall.EAGAIN) {
			t.Fatalf("got %v, want %v", err, syscall.EAGAIN)
		}
	})
}

// A machine counts as in session while it is, and after a mark only by a session that is newer.
func TestSessionsAreCounted(t *testing.T) {
	turns := newTurns()
	f := &Fleet{turns: turns, nodes: []*Node{{voice: newVoice(turns)}, {voice: newVoice(turns)}}}
	say := func(i int, word string) { slog.New(f.nodes[i].voice).Info(word) } //nolint:sloglint // the words are what is tested
	check := func(before []int, want int) {
		t.Helper()
		if got := f.InSession(before); got != want {
			t.Errorf("%d in session since %v, want %d", got, before, want)
		}
	}
	check(nil, 0)
	say(0, sessionOpened)
	say(1, sessionOpened)
	check(nil, 2)
	before := f.Opened()
	check(before, 0)
	say(0, sessionEnded)
	check(nil, 1)
	say(0, sessionOpened)
	check(before, 1)
	say(1, sessionOpened)
	check(before, 2)
}
