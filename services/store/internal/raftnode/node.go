// Package raftnode runs one member of the Raft group: log, election, membership, snapshots, and the state machine behind.
//
// It owns the order "durable, then answered": an outcome leaves it only after the entry is on this member's disk and on a
// quorum's. One goroutine, Run's, owns raft, the log and the machine; everything else talks to it over channels and reads
// what it publishes as a View. It must never look into objects: what a transaction means is the state machine's.
package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
	"github.com/shoalproject/shoal/services/store/internal/logstore"
)

// Times, in ticks. A leader that is lost is replaced after 1 to 2 s and an election.
const (
	tick          = 100 * time.Millisecond
	heartbeatTick = 1
	electionTick  = 10
	silentTicks   = 20 // after which a member counts as not reachable
	retryTicks    = 3  // after which a read without an answer is asked again
)

// Transport takes messages to other members. It may lose them; it must not block.
type Transport interface {
	Send(msgs []Outgoing)
	// SetPeers tells who is there, whenever that changes.
	SetPeers(peers []*storev1.RaftPeer)
}

// Outgoing is a message on its way out.
type Outgoing struct {
	Message *raftpb.Message
	// Parts are the snapshot's, when the message announces one; else nil.
	Parts func(yield func([]byte, error) bool)
}

// Sink gets what was applied, in order, before anybody gets an answer.
type Sink interface {
	// Publish gets the deltas of one entry, and the state after it.
	Publish(deltas []*storev1.Delta, snap *state.Snapshot)
	// Reset says that the state was replaced.
	Reset(snap *state.Snapshot)
}

// Config is what a Node needs.
type Config struct {
	Log       *slog.Logger
	Storage   logstore.Storage
	Writers   fsm.Writers
	Transport Transport
	Sink      Sink
	Rand      *run.Rand
	Now       func() time.Time
	Ticker    func(time.Duration) run.Ticker
	Metrics   prometheus.Registerer
	// First begins a history in an empty log; nil joins one.
	First *First
	// SnapshotEntries is how many entries are applied between two snapshots; KeepEntries how many stay for slow followers.
	SnapshotEntries, KeepEntries uint64
}

// Node is one member.
type Node struct {
	cfg     Config
	id      uint64
	log     logstore.Log
	raw     *raft.RawNode
	mem     *memoryLog
	machine *fsm.Machine
	clock   clock
	view    published
	metrics metrics

	proposals chan *proposal
	reads     chan *read
	inbox     chan Incoming
	calls     chan func()
	stopped   chan struct{}

	loop loopState
}

// loopState is what Run's goroutine alone touches.
type loopState struct {
	applied, appliedTerm uint64
	soft                 raft.SoftState
	term                 uint64
	conf                 *raftpb.ConfState
	peers                map[uint64]*storev1.RaftPeer
	removed              []uint64
	heard                map[uint64]uint64 // tick at which a member was last heard
	ticks                uint64

	queue    []*proposal
	inFlight map[uint64][]*proposal // by number, in this term
	number   uint64
	asked    []*readBatch
	readID   uint64
	change   *change
	received map[uint64]*received // snapshots on their way in, by index

	snapshotIndex uint64
	checkpoint    <-chan run.Result[struct{}]
	fatal         error
}

// Incoming is a message that came in.
type Incoming struct {
	Message *raftpb.Message
	// Time is the sender's cluster time if it leads; zero else.
	Time time.Time
	// snapshot is set by TakeSnapshot.
	snapshot *received
}

// ID is this member's Raft id.
func (n *Node) ID() uint64 { return n.id }

// Run drives the member until ctx ends, the member is removed, or its log fails.
func (n *Node) Run(ctx context.Context) error {
	defer n.close()
	ticker := n.cfg.Ticker(tick)
	defer ticker.Stop()
	n.cfg.Transport.SetPeers(n.peerList())
	n.campaignAlone()
	for {
		if err := n.settle(ctx); err != nil {
			return err
		}
		clear(n.loop.received) // what raft wanted, it has taken
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C():
			n.tick(ctx)
		case m := <-n.inbox:
			n.step(m)
		case p := <-n.proposals:
			n.loop.queue = append(n.loop.queue, p)
		case r := <-n.reads:
			n.ask(r)
		case f := <-n.calls:
			f()
		case r := <-n.loop.checkpoint:
			n.checkpointed(r)
		}
		n.drain()
	}
}

// drain takes what else is waiting, so that one Ready, one entry and one fsync serve all of it.
func (n *Node) drain() {
	for range 4096 {
		select {
		case m := <-n.inbox:
			n.step(m)
		case p := <-n.proposals:
			n.loop.queue = append(n.loop.queue, p)
		case r := <-n.reads:
			n.ask(r)
		case f := <-n.calls:
			f()
		default:
			return
		}
	}
}

// settle proposes what waits and handles all that raft has ready.
func (n *Node) settle(ctx context.Context) error {
	for {
		n.propose()
		n.askRaft()
		if n.loop.fatal != nil {
			return n.loop.fatal
		}
		if !n.raw.HasReady() {
			return nil
		}
		if err := n.handle(ctx, n.raw.Ready()); err != nil {
			return err
		}
	}
}

func (n *Node) tick(ctx context.Context) {
	n.loop.ticks++
	n.raw.Tick()
	if n.loop.ticks%retryTicks == 0 {
		n.askAgain()
	}
	if n.loop.ticks%5 == 0 {
		n.promote()
		n.publish() // who was heard changes with time alone
	}
	n.maybeCheckpoint(ctx)
}

// campaignAlone spares the only voter the wait for leaders that cannot be.
func (n *Node) campaignAlone() {
	if v := n.loop.conf.GetVoters(); len(v) == 1 && v[0] == n.id {
		if err := n.raw.Campaign(); err != nil {
			n.cfg.Log.Warn("campaign failed, the election timeout will try again", "error", err)
		}
	}
}

// step gives a message to raft.
func (n *Node) step(in Incoming) {
	m := in.Message
	if n.refusesLostTail(m) || raft.IsLocalMsg(m.GetType()) {
		return
	}
	n.loop.heard[m.GetFrom()] = n.loop.ticks
	if !in.Time.IsZero() {
		n.clock.see(in.Time)
	}
	if in.snapshot != nil {
		n.loop.received[m.GetSnapshot().GetMetadata().GetIndex()] = in.snapshot
	}
	if err := n.raw.Step(m); err != nil && !errors.Is(err, raft.ErrProposalDropped) {
		n.cfg.Log.Debug("raft drops a message", "type", m.GetType().String(), "from", m.GetFrom(), "error", err)
	}
}

// refusesLostTail notices that the leader counts on entries which this member acknowledged once and does not have: its disk
// went back in time. Such a member has broken its promise, and may have voted otherwise; it must not go on under its name.
func (n *Node) refusesLostTail(m *raftpb.Message) bool {
	if m.GetType() != raftpb.MsgHeartbeat || m.GetTerm() < n.loop.term {
		return false
	}
	last, err := n.mem.LastIndex()
	if err != nil || m.GetCommit() <= last {
		return false
	}
	n.loop.fatal = errs.New(errs.Precondition, "the log ends at entry %d, but the group knows that this member has had %d: "+
		"its disk went back in time; move the store's raft folder away and start again, to join as a new member", last, m.GetCommit())
	return true
}

// Take gives a message of another member to this one.
func (n *Node) Take(ctx context.Context, in Incoming) error {
	select {
	case n.inbox <- in:
		return nil
	case <-n.stopped:
		return n.ended()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Unreachable says that a message to the member was lost.
func (n *Node) Unreachable(id uint64) { n.tell(func() { n.raw.ReportUnreachable(id) }) }

// SnapshotSent says what became of a snapshot on its way to the member.
func (n *Node) SnapshotSent(id uint64, ok bool) {
	status := raft.SnapshotFinish
	if !ok {
		status = raft.SnapshotFailure
	}
	n.tell(func() { n.raw.ReportSnapshot(id, status) })
}

// tell runs f in the loop, some time, unless the node has stopped.
func (n *Node) tell(f func()) {
	select {
	case n.calls <- f:
	case <-n.stopped:
	}
}

// call runs f in the loop and waits for it.
func (n *Node) call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case n.calls <- func() { f(); close(done) }:
	case <-n.stopped:
		return n.ended()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-n.stopped:
		return n.ended()
	}
}

func (n *Node) ended() error {
	return errs.New(errs.Unavailable, "this store is stopping")
}

// close wakes everybody who waits, then gives the log back.
func (n *Node) close() {
	close(n.stopped)
	n.failAll(n.ended())
	if n.loop.checkpoint != nil {
		<-n.loop.checkpoint // it writes to the log that is closed next
	}
	if err := n.log.Close(); err != nil {
		n.cfg.Log.Warn("log did not close cleanly", "error", fmt.Errorf("close the log: %w", err))
	}
}
