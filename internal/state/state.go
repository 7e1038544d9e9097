// Package state holds the cluster's objects as immutable snapshots with their indexes, unique claims and references.
//
// It owns what follows from the objects alone: who claims what, who refers to whom, what a person sees as a task's state.
// It must never do I/O, read a clock or decide anything. A Snapshot is safe for concurrent use and never changes; a Txn
// belongs to one goroutine. Objects in either are shared by everybody: clone (proto.Clone) before a change.
package state

import (
	"sync"
	"time"

	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Version is a point in the store's history. Revisions compare only within one epoch, which is the number and the nonce.
type Version struct {
	EpochNumber, EpochNonce, Revision uint64
}

// VersionOf reads a version from its message; nil is the zero version.
func VersionOf(v *typesv1.Version) Version {
	return Version{
		EpochNumber: v.GetEpoch().GetNumber(),
		EpochNonce:  v.GetEpoch().GetNonce(),
		Revision:    v.GetRevision(),
	}
}

// Proto is the version as a message.
func (v Version) Proto() *typesv1.Version {
	return &typesv1.Version{Epoch: v.Epoch(), Revision: v.Revision}
}

// Epoch is the version's history as a message.
func (v Version) Epoch() *typesv1.Epoch {
	return &typesv1.Epoch{Number: v.EpochNumber, Nonce: v.EpochNonce}
}

// IsZero reports whether it is no version at all.
func (v Version) IsZero() bool { return v == Version{} }

// SameEpoch reports whether both are points of one history.
func (v Version) SameEpoch(w Version) bool {
	return v.EpochNumber == w.EpochNumber && v.EpochNonce == w.EpochNonce
}

// Reaches reports whether who holds v has seen w: the same history, at w or later.
func (v Version) Reaches(w Version) bool { return v.SameEpoch(w) && v.Revision >= w.Revision }

// Snapshot is the state of one version. It never changes.
type Snapshot struct {
	view
	version     Version
	clusterTime time.Time
	recent      history
	// A copy of a tree marks the original as shared, which is a write: two Begin at once must not race for it. Readers
	// do not look at the mark.
	begin sync.Mutex
}

// Empty is the snapshot before the first transaction.
func Empty() *Snapshot { return &Snapshot{view: newView()} }

// Version is where in the history this snapshot is.
func (s *Snapshot) Version() Version { return s.version }

// ClusterTime is the highest cluster time seen until this version; zero before the first.
func (s *Snapshot) ClusterTime() time.Time { return s.clusterTime }

// Begin starts a change. The snapshot stays valid and as it is. Any number of changes may begin from one snapshot.
func (s *Snapshot) Begin() *Txn {
	s.begin.Lock()
	defer s.begin.Unlock()
	return &Txn{view: s.copy(), from: s.version, recent: s.recent.copy(), clusterTime: s.clusterTime}
}

// Apply makes the snapshot after one delta. A delta with no object moves version and time alone.
func (s *Snapshot) Apply(d *storev1.Delta) *Snapshot {
	t := s.Begin()
	for _, o := range d.GetPuts() {
		t.Put(o)
	}
	for _, del := range d.GetDeletes() {
		t.Delete(Key{Kind: del.GetKind(), ID: del.GetId()})
	}
	var at time.Time
	if d.GetClusterTime() != nil {
		at = d.GetClusterTime().AsTime()
	}
	return t.Commit(VersionOf(d.GetVersion()), at)
}
