package raftnode

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/shoalproject/shoal/internal/errs"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
	"github.com/shoalproject/shoal/services/store/internal/logstore"
)

// First begins a history.
type First struct {
	Epoch       *typesv1.Epoch
	Transaction *storev1.Transaction
	// Peer is this member, without its Raft id.
	Peer *storev1.RaftPeer
}

// Start reads the log, or makes it, and readies the member. Run must follow.
func Start(cfg Config) (*Node, error) {
	log, err := cfg.Storage.Open()
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, log: log,
		clock:     clock{now: cfg.Now},
		view:      newPublished(),
		metrics:   newMetrics(cfg.Metrics),
		proposals: make(chan *proposal, 4096),
		reads:     make(chan *read, 1024),
		inbox:     make(chan Incoming, 1024),
		calls:     make(chan func(), 64),
		stopped:   make(chan struct{}),
	}
	n.loop.heard = map[uint64]uint64{}
	n.loop.inFlight = map[uint64][]*proposal{}
	n.loop.received = map[uint64]*received{}
	if err := n.load(); err != nil {
		_ = log.Close() // the error that counts is the first
		return nil, err
	}
	return n, nil
}

func (n *Node) load() error {
	c, err := n.log.Load()
	if err != nil {
		return err
	}
	if c.Empty() {
		if err := n.found(); err != nil {
			return err
		}
		if c, err = n.log.Load(); err != nil {
			return err
		}
	}
	n.id = c.ID
	group := fsm.Group{}
	n.machine = fsm.New(n.cfg.Writers)
	if c.Snapshot != nil {
		if n.machine, group, err = fsm.Restore(n.cfg.Writers, n.log.Parts()); err != nil {
			return fmt.Errorf("restore the state from the log's snapshot: %w", err)
		}
	}
	n.setGroup(c.Snapshot.GetConfState(), group)
	n.loop.applied, n.loop.snapshotIndex = c.Snapshot.GetIndex(), c.Snapshot.GetIndex()
	n.loop.appliedTerm = c.Snapshot.GetTerm()
	n.clock.see(n.machine.Snapshot().ClusterTime())
	if err := n.startRaft(c); err != nil {
		return err
	}
	n.cfg.Sink.Reset(n.machine.Snapshot())
	n.publish()
	return nil
}

// found fills an empty log: with the beginning of a history, or with an id alone for a member that joins.
func (n *Node) found() error {
	id := uint64(0)
	for raft.IsLocalMsgTarget(id) || id == 0 {
		id = n.cfg.Rand.Uint64()
	}
	if n.cfg.First == nil {
		return n.log.Save(logstore.Batch{ID: id, Sync: true})
	}
	// The first transaction is not an entry but a snapshot at index 1: so there is no moment at which the log has a group
	// and no state, and whoever joins later is sent a snapshot, for there is no entry 1.
	m := fsm.New(n.cfg.Writers)
	if out := m.Begin(n.cfg.First.Epoch, n.cfg.First.Transaction); out.GetRefusal() != 0 {
		return errs.New(errs.Invalid, "the first transaction is refused: %s", out.GetMessage())
	}
	peer := &storev1.RaftPeer{
		RaftId: id, Voter: true,
		MachineId: n.cfg.First.Peer.GetMachineId(), Addresses: n.cfg.First.Peer.GetAddresses(),
	}
	return n.log.Install(
		logstore.Snapshot{
			Meta: &raftpb.SnapshotMetadata{
				Index: new(uint64(1)), Term: new(uint64(1)), ConfState: &raftpb.ConfState{Voters: []uint64{id}},
			},
			Parts: m.Image().Parts(fsm.Group{Peers: []*storev1.RaftPeer{peer}}),
		},
		logstore.Batch{
			ID:        id,
			HardState: &raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(1)), Vote: new(uint64(0))},
			Sync:      true,
		})
}

func (n *Node) setGroup(conf *raftpb.ConfState, g fsm.Group) {
	n.loop.conf = raftpb.EnsureConfState(conf)
	n.loop.removed = g.Removed
	n.loop.peers = map[uint64]*storev1.RaftPeer{}
	for _, p := range g.Peers {
		n.loop.peers[p.GetRaftId()] = p
	}
}

func (n *Node) startRaft(c logstore.Contents) error {
	n.mem = newMemoryLog(n)
	if err := n.mem.load(c); err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	raw, err := raft.NewRawNode(&raft.Config{
		ID:                        n.id,
		ElectionTick:              electionTick,
		HeartbeatTick:             heartbeatTick,
		Storage:                   n.mem,
		Applied:                   n.loop.applied,
		MaxSizePerMsg:             1 << 20, // or one entry, of little more at most: far below what a store takes as one message
		MaxCommittedSizePerReady:  16 << 20,
		MaxUncommittedEntriesSize: 64 << 20,
		MaxInflightMsgs:           256,
		CheckQuorum:               true,
		PreVote:                   true,
		DisableProposalForwarding: true, // a follower passes whole calls on, not half-made transactions
		StepDownOnRemoval:         true,
		Logger:                    raftLog{n.cfg.Log},
	})
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.raw, n.loop.term = raw, c.HardState.GetTerm()
	return nil
}
