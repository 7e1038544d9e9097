package raftnode

import (
	"sync"
	"time"

	"go.etcd.io/raft/v3"

	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
)

// View is what a member knows at one moment. It never changes.
type View struct {
	// ID is this member's.
	ID uint64
	// Leader is its Raft id, 0 when none is known.
	Leader uint64
	// Serves says that this member leads and has applied an entry of its own term: before that its state may lack what
	// an earlier leader has acknowledged.
	Serves bool
	// Image is the applied state. It may lag; Linear does not.
	Image fsm.Image
	// Peers are the members of the group, in the order of ids.
	Peers []*storev1.RaftPeer
	// Removed are Raft ids that are not welcome any more.
	Removed []uint64
	// Heard are the members heard lately, as the leader knows; empty on others.
	Heard map[uint64]bool
}

// Peer is nil for an id that is not of the group.
func (v *View) Peer(id uint64) *storev1.RaftPeer {
	for _, p := range v.Peers {
		if p.GetRaftId() == id {
			return p
		}
	}
	return nil
}

// PeerOn is the member on a machine, nil when there is none.
func (v *View) PeerOn(machineID string) *storev1.RaftPeer {
	for _, p := range v.Peers {
		if p.GetMachineId() == machineID {
			return p
		}
	}
	return nil
}

// published is the latest View.
type published struct {
	state *publishedState
}

type publishedState struct {
	mu      sync.Mutex // guards all below
	view    *View
	changed chan struct{}
}

func newPublished() published {
	return published{&publishedState{view: &View{}, changed: make(chan struct{})}}
}

func (p published) get() (*View, <-chan struct{}) {
	p.state.mu.Lock()
	defer p.state.mu.Unlock()
	return p.state.view, p.state.changed
}

func (p published) set(v *View) {
	p.state.mu.Lock()
	old := p.state.changed
	p.state.view, p.state.changed = v, make(chan struct{})
	p.state.mu.Unlock()
	close(old)
}

// View is what this member knows now.
func (n *Node) View() *View {
	v, _ := n.view.get()
	return v
}

// Watch is View with a channel that is closed when there is another one.
func (n *Node) Watch() (*View, <-chan struct{}) { return n.view.get() }

// ClusterTime is the leader's time, or the highest that a follower has seen.
func (n *Node) ClusterTime() time.Time { return n.clock.time() }

// Leads reports whether this member leads, with its cluster time.
func (n *Node) Leads() (time.Time, bool) {
	v := n.View()
	return n.clock.time(), v.Leader == v.ID && v.ID != 0
}

// serves reports whether writes are taken.
func (n *Node) serves() bool {
	return n.loop.soft.RaftState == raft.StateLeader && n.loop.appliedTerm == n.loop.term
}

func (n *Node) publish() {
	v := &View{
		ID: n.id, Leader: n.loop.soft.Lead, Serves: n.serves(),
		Image: n.machine.Image(), Peers: n.peerList(), Removed: n.loop.removed,
		Heard: map[uint64]bool{},
	}
	if v.Leader == n.id {
		for _, p := range v.Peers {
			v.Heard[p.GetRaftId()] = n.reachable(p.GetRaftId())
		}
	}
	n.metrics.leads(v.Leader == n.id && n.id != 0)
	n.view.set(v)
}
