package raftnode

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
	"github.com/shoalproject/shoal/services/store/internal/logstore"
)

// handle does what raft asks for, in the order on which everything rests.
func (n *Node) handle(ctx context.Context, rd raft.Ready) error {
	// Step 1: a leader's entries may travel while they are written here: its own vote for them counts after step 2 only.
	early, late := n.sortMessages(rd.Messages)
	n.send(early)
	// Step 2: everything becomes durable, by one sync.
	if err := n.save(rd); err != nil {
		return err
	}
	// Step 3: only now may the others hear what this member has promised: votes and acknowledgements.
	n.send(late)
	n.observe(rd)
	// Step 4: what the quorum has is applied, published, and answered.
	if err := n.apply(rd.CommittedEntries); err != nil {
		return err
	}
	n.raw.Advance(rd)
	n.confirmReads(rd.ReadStates)
	n.publish()
	n.maybeCheckpoint(ctx)
	return nil
}

func (n *Node) sortMessages(msgs []*raftpb.Message) (early, late []*raftpb.Message) {
	for _, m := range msgs {
		switch m.GetType() {
		case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
			early = append(early, m)
		default:
			late = append(late, m)
		}
	}
	return early, late
}

func (n *Node) send(msgs []*raftpb.Message) {
	if len(msgs) == 0 {
		return
	}
	out := make([]Outgoing, 0, len(msgs))
	for _, m := range msgs {
		o := Outgoing{Message: m}
		if m.GetType() == raftpb.MsgSnap {
			if m.GetSnapshot().GetMetadata().GetIndex() != n.mem.made.index {
				n.raw.ReportSnapshot(m.GetTo(), raft.SnapshotFailure) // raft will ask for another one
				continue
			}
			o.Parts = n.mem.made.image.Parts(n.mem.made.group)
		}
		out = append(out, o)
	}
	n.cfg.Transport.Send(out)
}

func (n *Node) save(rd raft.Ready) error {
	b := logstore.Batch{HardState: rd.HardState, Entries: rd.Entries, Sync: rd.MustSync}
	if !raft.IsEmptySnap(rd.Snapshot) {
		if err := n.install(rd.Snapshot.GetMetadata(), b); err != nil {
			return err
		}
	} else if b.HardState != nil || len(b.Entries) > 0 {
		if err := n.log.Save(b); err != nil {
			return err
		}
	}
	if rd.HardState != nil {
		if err := n.mem.SetHardState(rd.HardState); err != nil {
			return fmt.Errorf("keep the hard state: %w", err)
		}
		n.newTerm(rd.HardState.GetTerm())
	}
	if err := n.mem.Append(rd.Entries); err != nil {
		return fmt.Errorf("keep entries: %w", err)
	}
	return nil
}

// received is a snapshot that came in, checked and ready.
type received struct {
	machine *fsm.Machine
	group   fsm.Group
	parts   [][]byte
}

// TakeSnapshot gives a snapshot of the leader to this member. It is read before raft sees it: one that does not read back
// must not replace anything.
func (n *Node) TakeSnapshot(ctx context.Context, in Incoming, parts [][]byte) error {
	m, g, err := fsm.Restore(n.cfg.Writers, sequence(parts))
	if err != nil {
		return errs.New(errs.Invalid, "snapshot from member %x: %w", in.Message.GetFrom(), err)
	}
	in.snapshot = &received{machine: m, group: g, parts: parts}
	return n.Take(ctx, in)
}

func sequence(parts [][]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, p := range parts {
			if !yield(p, nil) {
				return
			}
		}
	}
}

func (n *Node) install(meta *raftpb.SnapshotMetadata, b logstore.Batch) error {
	r := n.loop.received[meta.GetIndex()]
	if r == nil {
		return errs.New(errs.Internal, "raft accepted a snapshot at entry %d that did not come in", meta.GetIndex())
	}
	if n.loop.checkpoint != nil {
		n.checkpointed(<-n.loop.checkpoint) // one writer of snapshots at a time
	}
	b.Sync = true
	if err := n.log.Install(logstore.Snapshot{Meta: meta, Parts: sequence(r.parts)}, b); err != nil {
		return err
	}
	if err := n.mem.ApplySnapshot(&raftpb.Snapshot{Metadata: meta}); err != nil {
		return fmt.Errorf("take a snapshot: %w", err)
	}
	n.machine = r.machine
	n.setGroup(meta.GetConfState(), r.group)
	n.loop.applied, n.loop.appliedTerm, n.loop.snapshotIndex = meta.GetIndex(), meta.GetTerm(), meta.GetIndex()
	n.clock.see(n.machine.Snapshot().ClusterTime())
	n.cfg.Transport.SetPeers(n.peerList())
	n.cfg.Sink.Reset(n.machine.Snapshot())
	n.cfg.Log.Info("state replaced by a snapshot of the leader", "index", meta.GetIndex(), "revision", n.machine.Snapshot().Version().Revision)
	return nil
}

// observe notes who leads.
func (n *Node) observe(rd raft.Ready) {
	if rd.SoftState == nil {
		return
	}
	was := n.loop.soft
	n.loop.soft = *rd.SoftState
	leads := rd.SoftState.RaftState == raft.StateLeader
	if led := was.RaftState == raft.StateLeader; led && !leads {
		n.clock.follow()
		n.failAll(lostLeadership())
	} else if leads && !led {
		n.clock.lead()
	}
	if was.Lead != n.loop.soft.Lead {
		n.cfg.Log.Info("leader changed", "leader", n.loop.peers[n.loop.soft.Lead].GetMachineId(), "term", n.loop.term, "self", leads)
	}
}

// newTerm forgets the proposals of another term: entries are told apart by term and number.
func (n *Node) newTerm(term uint64) {
	if term == n.loop.term {
		return
	}
	n.loop.term = term
	n.failAll(lostLeadership())
}

func (n *Node) apply(entries []*raftpb.Entry) error {
	for _, e := range entries {
		if err := n.applyEntry(e); err != nil {
			return err
		}
		n.loop.applied, n.loop.appliedTerm = e.GetIndex(), e.GetTerm()
	}
	return n.loop.fatal
}

func (n *Node) applyEntry(e *raftpb.Entry) error {
	switch e.GetType() {
	case raftpb.EntryConfChange:
		return n.applyConfChange(e)
	case raftpb.EntryNormal:
		if len(e.GetData()) == 0 {
			return nil // a new leader's first entry
		}
	case raftpb.EntryConfChangeV2:
		return errs.New(errs.Internal, "entry %d is a joint change of members, which this release never makes", e.GetIndex())
	}
	entry := &storev1.LogEntry{}
	if err := proto.Unmarshal(e.GetData(), entry); err != nil {
		return fmt.Errorf("read entry %d: %w", e.GetIndex(), err)
	}
	if entry.GetFormat() != entryFormat {
		return errs.New(errs.Precondition, "entry %d has format %d, this release knows %d: upgrade this store", e.GetIndex(), entry.GetFormat(), entryFormat)
	}
	results := n.machine.Apply(entry)
	var deltas []*storev1.Delta
	for _, r := range results {
		if r.Delta != nil {
			deltas = append(deltas, r.Delta)
		}
	}
	snap := n.machine.Snapshot()
	n.clock.see(snap.ClusterTime())
	n.cfg.Sink.Publish(deltas, snap)
	n.metrics.revision.Set(float64(snap.Version().Revision))
	n.answer(e.GetTerm(), entry.GetNumber(), results)
	return nil
}

// maybeCheckpoint writes a snapshot beside the loop when enough was applied since the last one.
func (n *Node) maybeCheckpoint(ctx context.Context) {
	if n.loop.checkpoint != nil || n.loop.applied < n.loop.snapshotIndex+n.cfg.SnapshotEntries {
		return
	}
	image, group, meta := n.machine.Image(), n.group(), n.meta()
	compact := uint64(0)
	if meta.GetIndex() > n.cfg.KeepEntries {
		compact = meta.GetIndex() - n.cfg.KeepEntries
	}
	n.loop.snapshotIndex = meta.GetIndex()
	n.loop.checkpoint = run.Async(context.WithoutCancel(ctx), func(context.Context) (struct{}, error) {
		return struct{}{}, n.log.Checkpoint(logstore.Snapshot{Meta: meta, Parts: image.Parts(group)}, compact)
	})
}

func (n *Node) checkpointed(r run.Result[struct{}]) {
	n.loop.checkpoint = nil
	if r.Err != nil {
		n.loop.fatal = r.Err
		return
	}
	keep := n.loop.snapshotIndex - min(n.loop.snapshotIndex, n.cfg.KeepEntries)
	if err := n.mem.Compact(keep); err != nil && !errors.Is(err, raft.ErrCompacted) {
		n.loop.fatal = fmt.Errorf("forget old entries: %w", err)
	}
}

func (n *Node) meta() *raftpb.SnapshotMetadata {
	return &raftpb.SnapshotMetadata{Index: new(n.loop.applied), Term: new(n.loop.appliedTerm), ConfState: n.loop.conf}
}
