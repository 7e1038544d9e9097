// Package conformance holds every implementation of a store's log to the same contract.
//
// It owns the tests of logstore.Log's promises that need no crash. It must never know an implementation.
package conformance

import (
	"errors"
	"fmt"
	"iter"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/shoalproject/shoal/services/store/internal/logstore"
)

// Run runs the suite. Make returns an empty storage.
func Run(t *testing.T, open func(t *testing.T) logstore.Storage) {
	for _, tc := range []struct {
		name string
		f    func(*testing.T, logstore.Storage)
	}{
		{"an empty log is empty", empty},
		{"what was saved is there after a reopen", reopens},
		{"an append replaces what it overlaps", overlaps},
		{"a checkpoint replaces the one before and forgets entries", checkpoints},
		{"a checkpoint that fails leaves the older one", fails},
		{"a received snapshot replaces the whole log", installs},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.f(t, open(t)) })
	}
}

// Entries makes entries first to last of a term.
func Entries(term, first, last uint64) []*raftpb.Entry {
	var out []*raftpb.Entry
	for i := first; i <= last; i++ {
		out = append(out, &raftpb.Entry{
			Term: new(term), Index: new(i), Type: raftpb.EntryNormal.Enum(), Data: fmt.Appendf(nil, "entry %d of term %d", i, term),
		})
	}
	return out
}

// Hard makes a hard state.
func Hard(term, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: new(term), Vote: new(uint64(7)), Commit: new(commit)}
}

// Meta makes a snapshot's metadata.
func Meta(index, term uint64) *raftpb.SnapshotMetadata {
	return &raftpb.SnapshotMetadata{Index: new(index), Term: new(term), ConfState: &raftpb.ConfState{Voters: []uint64{7}}}
}

// Parts walks the given parts.
func Parts(parts ...string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, p := range parts {
			if !yield([]byte(p), nil) {
				return
			}
		}
	}
}

// Open opens, with its close at the end of the test.
func Open(t *testing.T, s logstore.Storage) logstore.Log {
	t.Helper()
	l, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Want compares all of a log with what is wanted.
func Want(t *testing.T, l logstore.Log, want logstore.Contents, parts ...string) {
	t.Helper()
	got, err := l.Load()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Fatalf("contents (-want +got):\n%s", d)
	}
	var have []string
	for p, err := range l.Parts() {
		if err != nil {
			t.Fatal(err)
		}
		have = append(have, string(p))
	}
	if d := cmp.Diff(parts, have); d != "" {
		t.Fatalf("parts (-want +got):\n%s", d)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func empty(t *testing.T, s logstore.Storage) {
	l := Open(t, s)
	c, err := l.Load()
	must(t, err)
	if !c.Empty() {
		t.Fatalf("a new log holds %+v", c)
	}
	must(t, l.Close())
}

func reopens(t *testing.T, s logstore.Storage) {
	l := Open(t, s)
	must(t, l.Save(logstore.Batch{ID: 7, HardState: Hard(1, 0), Entries: Entries(1, 1, 3), Sync: true}))
	must(t, l.Save(logstore.Batch{HardState: Hard(1, 3), Sync: true}))
	must(t, l.Save(logstore.Batch{Entries: Entries(1, 4, 5), Sync: true}))
	must(t, l.Close())
	l = Open(t, s)
	Want(t, l, logstore.Contents{ID: 7, HardState: Hard(1, 3), Entries: Entries(1, 1, 5)})
	must(t, l.Close())
}

func overlaps(t *testing.T, s logstore.Storage) {
	l := Open(t, s)
	must(t, l.Save(logstore.Batch{ID: 7, HardState: Hard(1, 1), Entries: Entries(1, 1, 9), Sync: true}))
	must(t, l.Save(logstore.Batch{HardState: Hard(2, 1), Entries: Entries(2, 4, 5), Sync: true}))
	want := logstore.Contents{ID: 7, HardState: Hard(2, 1), Entries: append(Entries(1, 1, 3), Entries(2, 4, 5)...)}
	Want(t, l, want)
	must(t, l.Close())
	l = Open(t, s)
	Want(t, l, want)
	must(t, l.Close())
}

func checkpoints(t *testing.T, s logstore.Storage) {
	l := Open(t, s)
	must(t, l.Save(logstore.Batch{ID: 7, HardState: Hard(1, 9), Entries: Entries(1, 1, 9), Sync: true}))
	must(t, l.Checkpoint(logstore.Snapshot{Meta: Meta(4, 1), Parts: Parts("a", "b", "c")}, 2))
	Want(t, l, logstore.Contents{ID: 7, HardState: Hard(1, 9), Entries: Entries(1, 3, 9), Snapshot: Meta(4, 1)}, "a", "b", "c")
	must(t, l.Checkpoint(logstore.Snapshot{Meta: Meta(8, 1), Parts: Parts("d")}, 6))
	must(t, l.Save(logstore.Batch{Entries: Entries(1, 10, 10), Sync: true}))
	must(t, l.Close())
	l = Open(t, s)
	Want(t, l, logstore.Contents{ID: 7, HardState: Hard(1, 9), Entries: Entries(1, 7, 10), Snapshot: Meta(8, 1)}, "d")
	must(t, l.Close())
}

func fails(t *testing.T, s logstore.Storage) {
	l := Open(t, s)
	must(t, l.Save(logstore.Batch{ID: 7, HardState: Hard(1, 9), Entries: Entries(1, 1, 9), Sync: true}))
	must(t, l.Checkpoint(logstore.Snapshot{Meta: Meta(4, 1), Parts: Parts("a", "b")}, 2))
	err := l.Checkpoint(logstore.Snapshot{Meta: Meta(8, 1), Parts: func(yield func([]byte, error) bool) {
		_ = yield([]byte("x"), nil) && yield(nil, errors.New("broken"))
	}}, 6)
	if err == nil {
		t.Fatal("a broken snapshot was kept")
	}
	Want(t, l, logstore.Contents{ID: 7, HardState: Hard(1, 9), Entries: Entries(1, 3, 9), Snapshot: Meta(4, 1)}, "a", "b")
	must(t, l.Close())
}

func installs(t *testing.T, s logstore.Storage) {
	l := Open(t, s)
	must(t, l.Save(logstore.Batch{ID: 7, HardState: Hard(1, 2), Entries: Entries(1, 1, 9), Sync: true}))
	must(t, l.Install(logstore.Snapshot{Meta: Meta(20, 3), Parts: Parts("z")}, logstore.Batch{HardState: Hard(3, 20), Entries: Entries(3, 21, 22)}))
	must(t, l.Save(logstore.Batch{Entries: Entries(3, 23, 23), Sync: true}))
	must(t, l.Close())
	l = Open(t, s)
	Want(t, l, logstore.Contents{ID: 7, HardState: Hard(3, 20), Entries: Entries(3, 21, 23), Snapshot: Meta(20, 3)}, "z")
	must(t, l.Close())
}
