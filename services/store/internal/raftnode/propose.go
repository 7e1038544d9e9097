package raftnode

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
)

// entryFormat is the format of LogEntry.
const entryFormat = 1

// Bounds of one entry. The bytes, which one transaction alone may exceed by its caller's name, keep a message far below what
// a store takes; the count keeps one apply short.
const (
	maxEntryBytes = fsm.MaxBytes
	maxEntryCount = 1024
	maxProposal   = fsm.MaxBytes + 64<<10 // with the caller, who is put in behind the check of the size
)

// NotLeader is in the error of a call that only the leader serves, when nothing of it was proposed: it may be tried on
// another member at once.
type NotLeader struct{}

func (NotLeader) Error() string { return "this store does not lead" }

func notLeader() error { return errs.New(errs.Unavailable, "%w", NotLeader{}) }

// NoQuorum is the error when there is no leader, in the words that people know.
func NoQuorum() error {
	return errs.New(errs.Unavailable, "the stores have no leader: it's possible that too few managers are online; "+
		"make sure more than half of the managers are online")
}

func lostLeadership() error {
	return errs.New(errs.Unavailable, "the store that took the call lost the leadership; the change may have been made or not")
}

type proposal struct {
	tx    *storev1.Transaction
	size  int
	began time.Time
	done  chan proposed
}

type proposed struct {
	outcome *storev1.Outcome
	err     error
}

// Propose has a transaction applied, and returns its outcome once a quorum has it on disk. Errors leave open whether it
// was applied, unless NotLeader is in them, or Invalid: what the others would not take as a message must not get into the
// log, for it would be sent to them for ever. The transaction is the node's from then on.
func (n *Node) Propose(ctx context.Context, tx *storev1.Transaction) (*storev1.Outcome, error) {
	p := &proposal{tx: tx, size: proto.Size(tx), began: time.Now(), done: make(chan proposed, 1)}
	if p.size > maxProposal {
		return nil, errs.New(errs.Invalid, "the change has %d bytes, at most %d are possible", p.size, fsm.MaxBytes)
	}
	select {
	case n.proposals <- p:
	case <-n.stopped:
		return nil, n.ended()
	case <-ctx.Done():
		return nil, errs.New(errs.Unavailable, "the store is busy: %w", ctx.Err())
	}
	select {
	case r := <-p.done:
		return r.outcome, r.err
	case <-n.stopped:
		return nil, n.ended()
	case <-ctx.Done():
		return nil, NoQuorum()
	}
}

// propose makes entries of what waits, as few as the bounds allow.
func (n *Node) propose() {
	for len(n.loop.queue) > 0 {
		if !n.serves() {
			n.fail(n.loop.queue, notLeader())
			n.loop.queue = nil
			return
		}
		count, size := 0, 0
		for count < len(n.loop.queue) && count < maxEntryCount {
			size += n.loop.queue[count].size + 8
			if count > 0 && size > maxEntryBytes {
				break
			}
			count++
		}
		n.proposeEntry(n.loop.queue[:count])
		n.loop.queue = n.loop.queue[count:]
	}
	n.loop.queue = nil
}

func (n *Node) proposeEntry(batch []*proposal) {
	n.loop.number++
	e := &storev1.LogEntry{Format: entryFormat, Number: n.loop.number}
	at := timestamppb.New(n.clock.time())
	for _, p := range batch {
		p.tx.ClusterTime = at
		e.Transactions = append(e.Transactions, p.tx)
	}
	data, err := proto.Marshal(e)
	if err == nil {
		err = n.raw.Propose(data)
	}
	if err != nil {
		n.fail(batch, errs.New(errs.Unavailable, "the store is busy: %w", err))
		return
	}
	n.metrics.proposals.Add(float64(len(batch)))
	n.loop.inFlight[n.loop.number] = batch
}

// answer tells the callers of an entry of this leader and term.
func (n *Node) answer(term, number uint64, results []fsm.Result) {
	batch, ok := n.loop.inFlight[number]
	if !ok || term != n.loop.term {
		return
	}
	delete(n.loop.inFlight, number)
	n.publish() // who is answered finds the state as it is after its change
	for i, p := range batch {
		n.metrics.commit.Observe(time.Since(p.began).Seconds())
		p.done <- proposed{outcome: results[i].Outcome}
	}
}

func (n *Node) fail(batch []*proposal, err error) {
	for _, p := range batch {
		p.done <- proposed{err: err}
	}
}

// failAll ends what was proposed, when this member can not know any more what becomes of it.
func (n *Node) failAll(err error) {
	for _, batch := range n.loop.inFlight {
		n.fail(batch, err)
	}
	clear(n.loop.inFlight)
	if c := n.loop.change; c != nil {
		n.loop.change = nil
		c.done <- err
	}
}
