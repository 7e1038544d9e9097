package raftnode

import (
	"context"
	"encoding/binary"

	"go.etcd.io/raft/v3"

	"github.com/shoalproject/shoal/services/store/internal/fsm"
)

type read struct {
	done chan fsm.Image // buffered
}

// readBatch is reads that share one question to the quorum.
type readBatch struct {
	id        uint64
	reads     []*read
	asked     bool
	confirmed bool
	index     uint64 // that must be applied, once confirmed
}

// Linear returns the state with everything in it that was acknowledged before the call, on any member. It asks the quorum
// (section 6.4 of Ongaro's dissertation: a read index), never a clock.
func (n *Node) Linear(ctx context.Context) (fsm.Image, error) {
	r := &read{done: make(chan fsm.Image, 1)}
	select {
	case n.reads <- r:
	case <-n.stopped:
		return fsm.Image{}, n.ended()
	case <-ctx.Done():
		return fsm.Image{}, NoQuorum()
	}
	select {
	case image := <-r.done:
		return image, nil
	case <-n.stopped:
		return fsm.Image{}, n.ended()
	case <-ctx.Done():
		return fsm.Image{}, NoQuorum()
	}
}

// ask puts the read into the batch that has not been asked yet. It must not join one that has: what was acknowledged after
// that question need not be in its answer.
func (n *Node) ask(r *read) {
	if k := len(n.loop.asked); k > 0 && !n.loop.asked[k-1].asked {
		n.loop.asked[k-1].reads = append(n.loop.asked[k-1].reads, r)
		return
	}
	n.loop.readID++
	n.loop.asked = append(n.loop.asked, &readBatch{id: n.loop.readID, reads: []*read{r}})
}

// askRaft puts the open batch to raft, when there is a leader.
func (n *Node) askRaft() {
	k := len(n.loop.asked)
	if k == 0 || n.loop.asked[k-1].asked || n.loop.soft.Lead == raft.None {
		return
	}
	n.loop.asked[k-1].asked = true
	n.raw.ReadIndex(binary.BigEndian.AppendUint64(nil, n.loop.asked[k-1].id))
}

// askAgain repeats a question that has no answer: it, or the answer, may have been lost on the way to the leader.
func (n *Node) askAgain() {
	if n.loop.soft.Lead == raft.None {
		return
	}
	for _, b := range n.loop.asked {
		if b.asked && !b.confirmed {
			n.raw.ReadIndex(binary.BigEndian.AppendUint64(nil, b.id))
		}
	}
}

func (n *Node) confirmReads(states []raft.ReadState) {
	for _, rs := range states {
		if len(rs.RequestCtx) != 8 {
			continue
		}
		id := binary.BigEndian.Uint64(rs.RequestCtx)
		for _, b := range n.loop.asked {
			if b.id == id && !b.confirmed {
				b.confirmed, b.index = true, rs.Index
			}
		}
	}
	n.answerReads()
}

func (n *Node) answerReads() {
	rest := n.loop.asked[:0]
	for _, b := range n.loop.asked {
		if !b.confirmed || b.index > n.loop.applied {
			rest = append(rest, b)
			continue
		}
		image := n.machine.Image()
		for _, r := range b.reads {
			r.done <- image
		}
	}
	clear(n.loop.asked[len(rest):])
	n.loop.asked = rest
}
