package state_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

func put(s *state.Snapshot, ids ...string) *state.Snapshot {
	txn := s.Begin()
	for _, id := range ids {
		txn.Put(state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: id}}))
	}
	v := s.Version()
	return txn.Commit(state.Version{EpochNumber: 1, EpochNonce: v.EpochNonce, Revision: v.Revision + 1}, time.Time{})
}

// TestChangedSince: what has changed after a version is told, also through a delete; what is too long ago, or another
// history, is not guessed.
func TestChangedSince(t *testing.T) {
	first := put(state.Empty(), "a")
	second := put(first, "b")
	txn := second.Begin()
	txn.Delete(state.Key{Kind: typesv1.Kind_KIND_NODE, ID: "a"})
	third := txn.Commit(state.Version{EpochNumber: 1, Revision: 3}, time.Time{})
	if keys, ok := third.ChangedSince(first.Version()); !ok || len(keys) != 2 {
		t.Errorf("after the first: %v %v", keys, ok)
	}
	if keys, ok := third.ChangedSince(third.Version()); !ok || len(keys) != 0 {
		t.Errorf("after itself: %v %v", keys, ok)
	}
	if _, ok := second.ChangedSince(third.Version()); ok {
		t.Error("a snapshot knows what comes after it")
	}
	if _, ok := third.ChangedSince(state.Version{EpochNumber: 2, Revision: 2}); ok {
		t.Error("it knows what led to another epoch")
	}
	if _, ok := first.ChangedSince(state.Version{EpochNumber: 1}); ok {
		t.Error("the first version of an epoch knows what led to it")
	}
	long := third
	for i := range 5000 {
		long = put(long, fmt.Sprint(i))
	}
	if _, ok := long.ChangedSince(third.Version()); ok {
		t.Error("five thousand revisions are remembered")
	}
	if keys, ok := long.ChangedSince(state.Version{EpochNumber: 1, Revision: 5000}); !ok || len(keys) != 3 {
		t.Errorf("the last three: %v %v", keys, ok)
	}
}
