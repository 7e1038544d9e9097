package raftnode

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
)

// change is a change of members under way; there is one at a time.
type change struct {
	number uint64
	done   chan error // buffered
}

// caughtUp is how many entries a learner may be behind to be made a voter.
const caughtUp = 64

// maxRemoved bounds the memory of removed members.
const maxRemoved = 1000

// Add makes the peer a learner, or updates its addresses; the leader makes it a voter once it has caught up, unless it
// stays one. A machine has one member: an older one, whose log was lost, goes first.
func (n *Node) Add(ctx context.Context, peer *storev1.RaftPeer) error {
	v := n.View()
	if slices.Contains(v.Removed, peer.GetRaftId()) {
		return errs.New(errs.Precondition, "store %s was removed; move its raft folder away and start again, to join as a new member", peer.GetMachineId())
	}
	for _, p := range v.Peers {
		if p.GetMachineId() == peer.GetMachineId() && p.GetRaftId() != peer.GetRaftId() {
			if err := n.Remove(ctx, p.GetRaftId(), false); err != nil {
				return fmt.Errorf("replace the member that store %s was before: %w", peer.GetMachineId(), err)
			}
		}
	}
	kind := raftpb.ConfChangeAddLearnerNode
	if old := v.Peer(peer.GetRaftId()); old != nil {
		if slices.Equal(old.GetAddresses(), peer.GetAddresses()) {
			return nil
		}
		// Whether it stays a learner has been decided since it came; what it says of that counts only then.
		peer.Learner = old.GetLearner()
		if old.GetVoter() {
			kind = raftpb.ConfChangeAddNode
		}
	}
	return n.alter(ctx, kind, peer)
}

// SetVoter lets a member vote, as soon as it has caught up, or makes it a learner that stays one. The latter is refused as
// a removal is. A leader cannot do it to itself: it gives the leadership away first.
func (n *Node) SetVoter(ctx context.Context, id uint64, voter, force bool) error {
	old := n.View().Peer(id)
	switch {
	case old == nil:
		return errs.New(errs.NotFound, "it is no member of the group")
	case voter == old.GetVoter() || (voter && !old.GetLearner()):
		return nil
	}
	if !voter {
		if err := n.Spare(ctx, id, force); err != nil {
			return err
		}
	}
	peer := &storev1.RaftPeer{RaftId: id, MachineId: old.GetMachineId(), Addresses: old.GetAddresses(), Learner: !voter}
	return n.alter(ctx, raftpb.ConfChangeAddLearnerNode, peer)
}

// Remove takes a member out of the group. It is refused when those that stay and were heard lately are no quorum of the
// group without it; force is for a group that is about to be mended by hand, and never takes the last voter out.
func (n *Node) Remove(ctx context.Context, id uint64, force bool) error {
	if err := n.Spare(ctx, id, force); err != nil {
		return err
	}
	return n.alter(ctx, raftpb.ConfChangeRemoveNode, &storev1.RaftPeer{RaftId: id})
}

// Spare refuses when the group can't do without the member's vote.
func (n *Node) Spare(ctx context.Context, id uint64, force bool) error {
	var refusal error
	if err := n.call(ctx, func() { refusal = n.mayRemove(id, force) }); err != nil {
		return err
	}
	return refusal
}

func (n *Node) mayRemove(id uint64, force bool) error {
	if !slices.Contains(n.loop.conf.GetVoters(), id) {
		return nil
	}
	rest, alive := 0, 0
	for _, v := range n.loop.conf.GetVoters() {
		if v == id {
			continue
		}
		rest++
		if n.reachable(v) {
			alive++
		}
	}
	switch {
	case rest == 0:
		return errs.New(errs.Precondition, "it is the last manager of the cluster; join another store first, and wait until it votes")
	case alive <= rest/2 && !force:
		return errs.New(errs.Precondition, "removing it would cost the quorum: of the %d other managers %d can be reached; "+
			"make sure more than half of the managers are online, or remove those that are gone first", rest, alive)
	}
	return nil
}

// Transfer gives the leadership to a voter that was heard lately, and not to one on the machines to avoid.
func (n *Node) Transfer(ctx context.Context, avoid ...string) error {
	var err error
	if cerr := n.call(ctx, func() {
		for _, v := range n.loop.conf.GetVoters() {
			if v != n.id && n.reachable(v) && !slices.Contains(avoid, n.loop.peers[v].GetMachineId()) {
				n.raw.TransferLeader(v)
				return
			}
		}
		err = errs.New(errs.Precondition, "no other manager can be reached that could lead")
	}); cerr != nil {
		return cerr
	}
	return err
}

// alter proposes a change of members and waits until it is applied.
func (n *Node) alter(ctx context.Context, kind raftpb.ConfChangeType, peer *storev1.RaftPeer) error {
	done := make(chan error, 1)
	if err := n.call(ctx, func() { n.proposeChange(kind, peer, done) }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-n.stopped:
		return n.ended()
	case <-ctx.Done():
		return errs.New(errs.Unavailable, "change the managers: %w", ctx.Err())
	}
}

func (n *Node) proposeChange(kind raftpb.ConfChangeType, peer *storev1.RaftPeer, done chan error) {
	switch {
	case !n.serves():
		done <- notLeader()
		return
	case n.loop.change != nil:
		done <- errs.New(errs.Unavailable, "another change of the managers is under way")
		return
	}
	n.loop.number++
	raw, err := proto.Marshal(peer)
	if err == nil {
		err = n.raw.ProposeConfChange(&raftpb.ConfChange{
			Type: kind.Enum(), NodeId: new(peer.GetRaftId()), Context: raw, Id: new(n.loop.number),
		})
	}
	if err != nil {
		done <- errs.New(errs.Unavailable, "change the managers: %w", err)
		return
	}
	n.loop.change = &change{number: n.loop.number, done: done}
}

func (n *Node) applyConfChange(e *raftpb.Entry) error {
	cc, peer := &raftpb.ConfChange{}, &storev1.RaftPeer{}
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		return fmt.Errorf("read the change of members in entry %d: %w", e.GetIndex(), err)
	}
	if err := proto.Unmarshal(cc.GetContext(), peer); err != nil {
		return fmt.Errorf("read the member in entry %d: %w", e.GetIndex(), err)
	}
	n.loop.conf = n.raw.ApplyConfChange(cc)
	if cc.GetType() == raftpb.ConfChangeRemoveNode {
		delete(n.loop.peers, cc.GetNodeId())
		n.loop.removed = append(n.loop.removed, cc.GetNodeId())
		if extra := len(n.loop.removed) - maxRemoved; extra > 0 {
			n.loop.removed = slices.Clone(n.loop.removed[extra:])
		}
		if cc.GetNodeId() == n.id {
			n.loop.fatal = errs.New(errs.Precondition, "this store was removed from the cluster")
		}
	} else {
		peer.Voter = cc.GetType() == raftpb.ConfChangeAddNode
		peer.Learner = peer.GetLearner() && !peer.GetVoter()
		n.loop.peers[cc.GetNodeId()] = peer
		n.loop.heard[cc.GetNodeId()] = n.loop.ticks
	}
	n.cfg.Log.Info("managers changed", "change", cc.GetType().String(), "member", cc.GetNodeId(), "voters", len(n.loop.conf.GetVoters()), "learners", len(n.loop.conf.GetLearners()))
	n.cfg.Transport.SetPeers(n.peerList())
	n.loop.applied, n.loop.appliedTerm = e.GetIndex(), e.GetTerm()
	n.publish()
	if c := n.loop.change; c != nil && c.number == cc.GetId() && e.GetTerm() == n.loop.term {
		n.loop.change = nil
		c.done <- nil
	}
	return nil
}

// promote makes a voter of a learner that has caught up, and does not stay one.
func (n *Node) promote() {
	if !n.serves() || n.loop.change != nil || len(n.loop.conf.GetLearners()) == 0 {
		return
	}
	last, err := n.mem.LastIndex()
	if err != nil {
		return
	}
	ready := uint64(0)
	n.raw.WithProgress(func(id uint64, kind raft.ProgressType, pr tracker.Progress) {
		caught := kind == raft.ProgressTypeLearner && pr.State == tracker.StateReplicate && pr.Match+caughtUp >= last
		if caught && n.reachable(id) && !n.loop.peers[id].GetLearner() {
			ready = id
		}
	})
	if peer := n.loop.peers[ready]; peer != nil {
		n.proposeChange(raftpb.ConfChangeAddNode, peer, make(chan error, 1))
	}
}

func (n *Node) reachable(id uint64) bool {
	heard, ok := n.loop.heard[id]
	return id == n.id || (ok && n.loop.ticks-heard <= silentTicks)
}

func (n *Node) group() fsm.Group {
	return fsm.Group{Peers: n.peerList(), Removed: slices.Clone(n.loop.removed)}
}

func (n *Node) peerList() []*storev1.RaftPeer {
	out := make([]*storev1.RaftPeer, 0, len(n.loop.peers))
	for _, p := range n.loop.peers {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *storev1.RaftPeer) int { return cmp.Compare(a.GetRaftId(), b.GetRaftId()) })
	return out
}
