package splice

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

func server() *Server {
	env := run.Env{Rand: run.NewRand(1), Metrics: prometheus.NewRegistry()}
	return New("d1", env, nil, nil, make(chan struct{}))
}

// A call may be joined by the machine that it was asked of, once, and by nobody else, whatever id it has learnt.
func TestOnlyTheMachineThatWasAskedMayJoin(t *testing.T) {
	s := server()
	l := newLink("n1")
	if !s.enter("id", l) {
		t.Fatal("there is no room for one")
	}
	if s.take("id", "n2") != nil {
		t.Error("another machine has joined")
	}
	s.Refused("n2", &dispatcherv1.StreamRefusal{StreamId: []byte("id"), Reason: "not mine"})
	if s.take("id", "n1") != l {
		t.Error("the machine itself could not join")
	}
	if s.take("id", "n1") != nil {
		t.Error("it has joined twice")
	}
	s.leave("id", l)
}

// The calls of one machine are bounded; those that end make room.
func TestCallsOfOneMachineAreBounded(t *testing.T) {
	s := server()
	links := map[string]*link{}
	for i := range maxLinks {
		id := string(rune('a' + i))
		links[id] = newLink("n1")
		if !s.enter(id, links[id]) {
			t.Fatalf("no room for call %d", i)
		}
	}
	if s.enter("more", newLink("n1")) {
		t.Error("one more than the bound")
	}
	if !s.enter("other", newLink("n2")) {
		t.Error("another machine's calls count, too")
	}
	for id, l := range links {
		s.leave(id, l)
		break
	}
	if !s.enter("more", newLink("n1")) {
		t.Error("a call that has ended makes no room")
	}
}

// What an agent has said before its end is passed on; the first reason for an end counts.
func TestLinkEnds(t *testing.T) {
	l := newLink("n1")
	if err := l.put(l.up, []byte("last words")); err != nil {
		t.Fatal(err)
	}
	why := errs.New(errs.Precondition, "it has ended")
	l.finish(why)
	l.end(errs.New(errs.Unavailable, "later"))
	if m := <-l.up; string(m) != "last words" {
		t.Errorf("%q", m)
	}
	if _, more := <-l.up; more || !errors.Is(l.err, why) {
		t.Errorf("%v, %v", more, l.err)
	}
	for range depth {
		if err := l.put(l.down, nil); err != nil && !errors.Is(err, why) {
			t.Errorf("%v", err)
		}
	}
	if err := l.put(l.down, nil); !errors.Is(err, why) {
		t.Errorf("a message for nobody: %v", err)
	}
}
