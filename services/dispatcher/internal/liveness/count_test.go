package liveness

import (
	"maps"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/replica/replicatest"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// A dispatcher that is drained may go when its last session has. So each stream that ends is counted once, whatever ends it.
func TestOpenStreamsAreCounted(t *testing.T) {
	now := time.Unix(1_900_000_000, 0)
	table := NewTable()
	end := func(error) {}
	for _, step := range []struct {
		what string
		do   func()
		want int
	}{
		{"an earlier life's is none", func() { table.Adopt("n1", 1, now) }, 0},
		{"opened", func() { table.Open("n1", 2, now, end) }, 1},
		{"superseded", func() { table.Open("n1", 3, now, end) }, 1},
		{"the superseded one ends", func() { table.Closed("n1", 2) }, 1},
		{"one that comes too late", func() { table.Open("n1", 2, now, end) }, 1},
		{"another machine", func() { table.Open("n2", 1, now, end) }, 2},
		{"told to end", func() { table.End("n2", 1, nil) }, 2},
		{"ended", func() { table.Closed("n2", 1) }, 1},
		{"ended again", func() { table.Closed("n2", 1) }, 1},
		{"forgotten when ended", func() { table.Forget("n2", 1) }, 1},
		{"forgotten while open", func() { table.Forget("n1", 3) }, 0},
		{"and ended then", func() { table.Closed("n1", 3) }, 0},
	} {
		if step.do(); table.Carried() != step.want {
			t.Errorf("%s: %d, want %d", step.what, table.Carried(), step.want)
		}
	}
}

// Of how many machines a dispatcher has, only what has changed is looked at. It comes to the same as counting all.
func TestMachinesAreCountedByTheirDispatcher(t *testing.T) {
	bound := func(id, to string) *typesv1.Object {
		return state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: id}, Status: &typesv1.NodeStatus{Session: &typesv1.NodeSession{DispatcherId: to}}})
	}
	store := replicatest.New(testx.Env(t), bound("n1", "d1"), bound("n2", "d1"), bound("n3", "d2"))
	m := &Monitor{peers: newPeers("d1", defaults())}
	for _, step := range []struct {
		what   string
		change func()
	}{
		{"at first", func() {}},
		{"nothing new", func() {}},
		{"one moves, one comes", func() { store.Put(bound("n2", "d2"), bound("n4", "d3")) }},
		{"the last one of a dispatcher leaves it", func() { store.Put(bound("n4", "")) }},
		{"one is removed", func() { store.Delete(state.Key{Kind: typesv1.Kind_KIND_NODE, ID: "n1"}) }},
		{"it comes again", func() { store.Put(bound("n1", "d2")) }},
	} {
		step.change()
		s := store.Snapshot()
		m.peers.count(s, m.changed(s))
		all := newPeers("d1", defaults())
		if all.count(s, changed{all: true}); !maps.Equal(m.peers.bound, all.bound) {
			t.Errorf("%s: %v, want %v", step.what, m.peers.bound, all.bound)
		}
	}
}
