// Package logstore keeps one store member's Raft log on its disk: its Raft id, the hard state, the entries and one snapshot.
//
// It owns the format of the records (docs/decisions/0002-store-log.md) and the promise behind every answer of the store:
// what Save has returned for, a crash does not take back. It must never know what is in an entry. There are two
// implementations, Pebble here and memory in storetest; the suite in conformance holds both to the contract below.
package logstore

import (
	"iter"

	"go.etcd.io/raft/v3/raftpb"
)

// Storage is a member's disk.
type Storage interface {
	// Open opens the log that is there, or makes an empty one. At most one handle is open at a time.
	Open() (Log, error)
}

// Log is an open log. Checkpoint may run beside Save; everything else has one caller.
type Log interface {
	// Load returns all that is kept. A record that does not read back as it was written is an error that names it: a member
	// with a bad log must not vote.
	Load() (Contents, error)
	// Save writes the batch as one: after a crash all of it is there or none. If the batch asks for a sync, Save returns
	// after it is durable, with everything saved before.
	Save(b Batch) error
	// Checkpoint replaces the snapshot by one that this member made, and forgets the entries up to compact. It is durable
	// when it returns; after a crash in the middle the older snapshot is whole.
	Checkpoint(s Snapshot, compact uint64) error
	// Install replaces the snapshot and all entries by a snapshot that was received, in one step with the batch.
	Install(s Snapshot, b Batch) error
	// Parts walks the parts of the snapshot. The bytes are the caller's.
	Parts() iter.Seq2[[]byte, error]
	// Close gives the handle back. It makes nothing durable that was not.
	Close() error
}

// Contents is what a log holds.
type Contents struct {
	// ID is this member's Raft id, 0 in an empty log.
	ID uint64
	// HardState is nil in an empty log.
	HardState *raftpb.HardState
	// Entries are consecutive and end the log.
	Entries []*raftpb.Entry
	// Snapshot is nil when there is none.
	Snapshot *raftpb.SnapshotMetadata
}

// Empty reports whether the member has never held anything.
func (c Contents) Empty() bool {
	return c.ID == 0 && c.HardState == nil && len(c.Entries) == 0 && c.Snapshot == nil
}

// Batch is what one Save writes.
type Batch struct {
	// ID is set once, in the first batch of a log; 0 leaves it as it is.
	ID uint64
	// HardState is nil when it has not changed.
	HardState *raftpb.HardState
	// Entries are consecutive. What the log holds at and after the first one's index is replaced.
	Entries []*raftpb.Entry
	// Sync asks that it is durable before Save returns.
	Sync bool
}

// Snapshot is a snapshot on its way to the disk.
type Snapshot struct {
	Meta *raftpb.SnapshotMetadata
	// Parts are at most 3 MiB each. An error among them ends the checkpoint without effect.
	Parts iter.Seq2[[]byte, error]
}
