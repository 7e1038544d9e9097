package session

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// A change concerns the machines whose tasks, services or own object it changes, and nobody else; what each task of the
// cluster may need concerns all.
func TestConcerned(t *testing.T) {
	task := func(id, service, node string) *typesv1.Object {
		return state.Wrap(&typesv1.Task{Meta: &typesv1.Meta{Id: id}, ServiceId: service, Decided: &typesv1.TaskDecided{NodeId: node}})
	}
	node := func(id string) *typesv1.Object { return state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: id}}) }
	service := func(id string) *typesv1.Object { return state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: id}}) }
	at := uint64(1)
	commit := func(txn *state.Txn) *state.Snapshot {
		at++
		return txn.Commit(state.Version{EpochNumber: 1, Revision: at}, time.Time{})
	}
	txn := state.Empty().Begin()
	for _, o := range []*typesv1.Object{node("n1"), node("n2"), node("n3"), service("s"), task("t1", "s", "n1"), task("t2", "s", "n2"), task("t3", "other", "n3")} {
		txn.Put(o)
	}
	before := commit(txn)
	for _, c := range []struct {
		name   string
		put    []*typesv1.Object
		delete state.Key
		want   string
	}{
		{name: "a new task", put: []*typesv1.Object{task("t4", "s", "n3")}, want: "n3"},
		{name: "a changed task", put: []*typesv1.Object{task("t1", "s", "n1")}, want: "n1"},
		{name: "a task that goes", delete: state.Key{Kind: typesv1.Kind_KIND_TASK, ID: "t2"}, want: "n2"},
		{name: "a service", put: []*typesv1.Object{service("s")}, want: "n1 n2"},
		{name: "a service that goes", delete: state.Key{Kind: typesv1.Kind_KIND_SERVICE, ID: "s"}, want: "n1 n2"},
		{name: "a node", put: []*typesv1.Object{node("n2")}, want: "n2"},
		{name: "a network", put: []*typesv1.Object{state.Wrap(&typesv1.Network{Meta: &typesv1.Meta{Id: "x"}})}, want: "all"},
		{name: "the cluster", put: []*typesv1.Object{state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c"}})}, want: "all"},
		{name: "a lease", put: []*typesv1.Object{state.Wrap(&typesv1.Lease{Meta: &typesv1.Meta{Id: "scheduler"}})}, want: ""},
	} {
		txn := before.Begin()
		for _, o := range c.put {
			txn.Put(o)
		}
		if c.delete.ID != "" {
			txn.Delete(c.delete)
		}
		nodes, few := concerned(before, commit(txn))
		got := strings.TrimSpace(strings.Join(slices.Sorted(maps.Keys(nodes)), " ")) // a task without a node is nobody's
		if !few {
			got = "all"
		}
		if got != c.want {
			t.Errorf("%s concerns %q, want %q", c.name, got, c.want)
		}
	}
	if _, few := concerned(nil, before); few {
		t.Error("the first look concerns all")
	}
}
