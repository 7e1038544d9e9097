// Package journaltest holds every journal to one contract.
//
// It owns the conformance suite, which runs against the bbolt file and against the fake that the simulation uses. It must
// never reach into an implementation.
package journaltest

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/journal"
)

// Medium is a place where a journal is kept.
type Medium interface {
	// Open opens the journal that is kept there.
	Open(t *testing.T) journal.Journal
	// Crash takes the power: the journal that was open is dead, and only what was saved is left.
	Crash(t *testing.T, j journal.Journal)
}

// Conform runs the suite; fresh gives a fresh medium.
func Conform(t *testing.T, fresh func(t *testing.T) Medium) {
	t.Run("an empty journal loads", func(t *testing.T) {
		got := load(t, fresh(t).Open(t))
		if got.Generation != nil || len(got.Tasks) != 0 || got.Cluster != "" {
			t.Errorf("a new journal holds %+v", got)
		}
	})
	t.Run("what was saved outlives a crash", func(t *testing.T) { saved(t, fresh(t)) })
	t.Run("a change replaces only what it names", func(t *testing.T) { partial(t, fresh(t)) })
	t.Run("what was deleted is gone", func(t *testing.T) { deleted(t, fresh(t)) })
	t.Run("the caller may go on changing what it saved", func(t *testing.T) { aliased(t, fresh(t)) })
}

func saved(t *testing.T, m Medium) {
	j := m.Open(t)
	save(t, j, journal.Change{
		Cluster: "c1", Generation: version(7), Blocks: []string{"10.128.1.0/24", "fd00::/64"},
		Put: map[string]journal.Record{"a": record("a", 3, true), "b": {Observed: observed(1)}},
	})
	m.Crash(t, j)
	want := journal.State{
		Cluster: "c1", Generation: version(7), Blocks: []string{"10.128.1.0/24", "fd00::/64"},
		Tasks: map[string]journal.Record{"a": record("a", 3, true), "b": {Observed: observed(1)}},
	}
	same(t, want, load(t, m.Open(t)))
}

func partial(t *testing.T, m Medium) {
	j := m.Open(t)
	save(t, j, journal.Change{
		Cluster: "c1", Generation: version(7), Blocks: []string{"10.128.1.0/24"},
		Put: map[string]journal.Record{"a": record("a", 1, true), "b": record("b", 1, false)},
	})
	save(t, j, journal.Change{Put: map[string]journal.Record{"a": record("a", 2, false)}})
	want := journal.State{
		Cluster: "c1", Generation: version(7), Blocks: []string{"10.128.1.0/24"},
		Tasks: map[string]journal.Record{"a": record("a", 2, false), "b": record("b", 1, false)},
	}
	same(t, want, load(t, j))
	save(t, j, journal.Change{Generation: version(8)})
	want.Generation, want.Blocks = version(8), nil
	same(t, want, load(t, j))
}

func deleted(t *testing.T, m Medium) {
	j := m.Open(t)
	save(t, j, journal.Change{Put: map[string]journal.Record{"a": record("a", 1, true), "b": record("b", 1, true)}})
	save(t, j, journal.Change{Delete: []string{"a", "never there"}})
	m.Crash(t, j)
	same(t, journal.State{Tasks: map[string]journal.Record{"b": record("b", 1, true)}}, load(t, m.Open(t)))
}

func aliased(t *testing.T, m Medium) {
	j := m.Open(t)
	r := record("a", 1, false)
	save(t, j, journal.Change{Put: map[string]journal.Record{"a": r}})
	r.Observed.Seq = 99
	if got := load(t, j).Tasks["a"].Observed.GetSeq(); got != 1 {
		t.Errorf("the journal changed by itself: seq %d", got)
	}
}

func load(t *testing.T, j journal.Journal) journal.State {
	t.Helper()
	s, err := j.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func save(t *testing.T, j journal.Journal, c journal.Change) {
	t.Helper()
	if err := j.Save(context.Background(), c); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, want, got journal.State) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("journal (-want +got):\n%s", diff)
	}
}

func version(revision uint64) *typesv1.Version {
	return &typesv1.Version{Epoch: &typesv1.Epoch{Number: 1, Nonce: 5}, Revision: revision}
}

func observed(seq uint64) *typesv1.TaskObserved {
	return &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_RUNNING, Seq: seq, Ready: true}
}

func record(id string, seq uint64, acked bool) journal.Record {
	return journal.Record{
		Task:     &dispatcherv1.AssignedTask{TaskId: id, Slot: 1, SpecHash: []byte{1}},
		Observed: observed(seq), Acked: acked,
	}
}
