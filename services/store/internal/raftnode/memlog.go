package raftnode

import (
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/shoalproject/shoal/services/store/internal/fsm"
	"github.com/shoalproject/shoal/services/store/internal/logstore"
)

// memoryLog is the log as raft reads it. Entries are in memory, as they are on disk; a snapshot is made when one is asked
// for, from the state as it is then.
type memoryLog struct {
	*raft.MemoryStorage
	node *Node
	// made is the state that goes with the last snapshot that raft was given.
	made made
}

type made struct {
	index uint64
	image fsm.Image
	group fsm.Group
}

func newMemoryLog(n *Node) *memoryLog {
	return &memoryLog{MemoryStorage: raft.NewMemoryStorage(), node: n}
}

func (m *memoryLog) load(c logstore.Contents) error {
	if c.Snapshot != nil {
		if err := m.ApplySnapshot(&raftpb.Snapshot{Metadata: c.Snapshot}); err != nil {
			return err
		}
	}
	if hs := c.HardState; hs != nil {
		// What is in a snapshot was committed, also if the hard state that says so was not synced.
		hs.Commit = new(max(hs.GetCommit(), c.Snapshot.GetIndex()))
		if err := m.SetHardState(hs); err != nil {
			return err
		}
	}
	return m.Append(c.Entries)
}

// Snapshot implements raft.Storage.
func (m *memoryLog) Snapshot() (*raftpb.Snapshot, error) {
	n := m.node
	if n.loop.applied == 0 {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	m.made = made{index: n.loop.applied, image: n.machine.Image(), group: n.group()}
	return &raftpb.Snapshot{Metadata: n.meta()}, nil
}

// raftLog passes raft's words on. They have no constant message; they are one attribute.
type raftLog struct{ log *slog.Logger }

func (r raftLog) Debug(v ...any) { r.log.Debug("raft", "says", fmt.Sprint(v...)) }
func (r raftLog) Debugf(format string, v ...any) {
	r.log.Debug("raft", "says", fmt.Sprintf(format, v...))
}
func (r raftLog) Info(v ...any) { r.log.Debug("raft", "says", fmt.Sprint(v...)) }
func (r raftLog) Infof(format string, v ...any) {
	r.log.Debug("raft", "says", fmt.Sprintf(format, v...))
}
func (r raftLog) Warning(v ...any) { r.log.Debug("raft", "says", fmt.Sprint(v...)) }
func (r raftLog) Warningf(format string, v ...any) {
	r.log.Debug("raft", "says", fmt.Sprintf(format, v...))
}
func (r raftLog) Error(v ...any) { r.log.Error("raft", "says", fmt.Sprint(v...)) }
func (r raftLog) Errorf(format string, v ...any) {
	r.log.Error("raft", "says", fmt.Sprintf(format, v...))
}
func (r raftLog) Fatal(v ...any)                 { panic(fmt.Sprint(v...)) }          //nolint:forbidigo // raft found its own state impossible: going on would lose data
func (r raftLog) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) } //nolint:forbidigo // raft found its own state impossible: going on would lose data
func (r raftLog) Panic(v ...any)                 { panic(fmt.Sprint(v...)) }          //nolint:forbidigo // raft found its own state impossible: going on would lose data
func (r raftLog) Panicf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) } //nolint:forbidigo // raft found its own state impossible: going on would lose data
