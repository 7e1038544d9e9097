// Package transport carries Raft messages and snapshots between stores.
//
// It owns one outgoing stream a peer, so that heartbeats never wait behind anything but entries, and a stream of its own
// for each snapshot. It may lose messages, which Raft repairs; it must never block the node, and never hand a message to a
// member that it is not for. Safe for concurrent use.
package transport

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/run"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
)

// Node is the member that messages are from and for.
type Node interface {
	ID() uint64
	View() *raftnode.View
	Watch() (*raftnode.View, <-chan struct{})
	Leads() (clusterTime time.Time, ok bool)
	Take(ctx context.Context, in raftnode.Incoming) error
	TakeSnapshot(ctx context.Context, in raftnode.Incoming, parts [][]byte) error
	Unreachable(id uint64)
	SnapshotSent(id uint64, ok bool)
}

// Transport is a raftnode.Transport over gRPC.
type Transport struct {
	log   *slog.Logger
	dial  func(address string) (*grpc.ClientConn, error)
	tasks *run.Spawner
	ready chan struct{} // closed by Bind
	left  chan error    // at most one: the others say that this member was removed

	mu      sync.Mutex // guards all below
	node    Node
	wanted  []*storev1.RaftPeer // as the node knows
	told    []*storev1.RaftPeer // as another store has told, until the node knows
	peers   map[uint64]*peer
	changed chan struct{}
}

// New makes one. Dial makes a client of one store.
func New(log *slog.Logger, dial func(address string) (*grpc.ClientConn, error)) *Transport {
	return &Transport{
		log: log, dial: dial, tasks: run.NewSpawner(log), peers: map[uint64]*peer{},
		ready: make(chan struct{}), changed: make(chan struct{}, 1), left: make(chan error, 1),
	}
}

// Bind gives the transport its node, once, before Run.
func (t *Transport) Bind(n Node) {
	t.mu.Lock()
	t.node = n
	t.mu.Unlock()
	close(t.ready)
}

// SetPeers implements raftnode.Transport.
func (t *Transport) SetPeers(peers []*storev1.RaftPeer) {
	t.mu.Lock()
	t.wanted = peers
	t.mu.Unlock()
	select {
	case t.changed <- struct{}{}:
	default: // a change is announced already
	}
}

// Tell gives the peers of a member that was just taken in: until the leader's snapshot has come it does not know whom to
// answer.
func (t *Transport) Tell(peers []*storev1.RaftPeer) {
	t.mu.Lock()
	t.told = peers
	t.mu.Unlock()
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// Send implements raftnode.Transport.
func (t *Transport) Send(msgs []raftnode.Outgoing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range msgs {
		if p := t.peers[m.Message.GetTo()]; p != nil {
			p.put(m)
		}
	}
}

// Run keeps a sender for each peer until ctx ends, or until this member learns that it was removed.
func (t *Transport) Run(ctx context.Context) error {
	select {
	case <-t.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(ctx)
	err := t.reconcile(ctx)
	cancel()
	if werr := t.tasks.Wait(context.WithoutCancel(ctx)); werr != nil {
		return werr
	}
	return err
}

func (t *Transport) reconcile(ctx context.Context) error {
	for {
		t.update(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-t.left:
			return err
		case <-t.changed:
		}
	}
}

// update starts senders for new peers and addresses, and ends those of others.
func (t *Transport) update(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	keep := map[uint64]bool{}
	wanted := t.wanted
	if len(wanted) == 0 {
		wanted = t.told
	}
	for _, w := range wanted {
		id := w.GetRaftId()
		if id == t.node.ID() || len(w.GetAddresses()) == 0 {
			continue
		}
		keep[id] = true
		if old := t.peers[id]; old != nil {
			if slices.Equal(old.addresses, w.GetAddresses()) {
				continue
			}
			old.cancel()
		}
		pctx, cancel := context.WithCancel(ctx)
		p := &peer{
			t: t, id: id, machine: w.GetMachineId(), addresses: w.GetAddresses(), cancel: cancel,
			queue: make(chan *raftpb.Message, queueLength), snapshots: make(chan raftnode.Outgoing, 1),
		}
		t.peers[id] = p
		t.tasks.Go(pctx, "raft sender", p.run)
		t.tasks.Go(pctx, "raft snapshot sender", p.runSnapshots)
	}
	for id, p := range t.peers {
		if !keep[id] {
			p.cancel()
			delete(t.peers, id)
		}
	}
}

// Conn is a connection to a member of the group, nil when there is none. The caller must not close it.
func (t *Transport) Conn(id uint64) *grpc.ClientConn {
	t.mu.Lock()
	p := t.peers[id]
	t.mu.Unlock()
	if p == nil {
		return nil
	}
	conn, _ := p.connect()
	return conn
}

func (t *Transport) removed(err error) {
	select {
	case t.left <- err:
	default: // somebody has said it already
	}
}
