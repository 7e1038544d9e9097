package raftnode

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
	"github.com/shoalproject/shoal/services/store/internal/logstore"
)

// disk is a crashable disk; storetest would be an import cycle's worth of convenience, so the tests take it as an interface.
type disk interface {
	logstore.Storage
	Crash()
}

// group is some members on a bus that a test can cut.
type group struct {
	t     *testing.T
	disks func(seed uint64) disk
	rand  *run.Rand

	mu      sync.Mutex // guards all below
	members map[string]*member
	cut     map[string]bool
	term    uint64 // the highest that votes were asked for
}

// votes is how many terms votes were asked for, so far.
func (g *group) votes() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int(g.term)
}

type member struct {
	name   string
	disk   disk
	node   *Node
	cancel context.CancelFunc
	done   chan error
	up     bool
}

func newGroup(t *testing.T) *group {
	return &group{
		t: t, rand: run.NewRand(1), members: map[string]*member{}, cut: map[string]bool{},
		disks: newDisk,
	}
}

// bus is one member's way to the others.
type bus struct {
	g    *group
	from string
}

func (b *bus) SetPeers([]*storev1.RaftPeer) {}

func (b *bus) Send(msgs []Outgoing) {
	for _, m := range msgs {
		b.g.deliver(b.from, m)
	}
}

func (g *group) deliver(from string, o Outgoing) {
	g.mu.Lock()
	defer g.mu.Unlock()
	src := g.members[from]
	if g.cut[from] || src == nil || !src.up {
		return
	}
	for _, to := range g.members {
		if to.node == nil || to.node.ID() != o.Message.GetTo() || g.cut[to.name] || !to.up {
			continue
		}
		m := proto.Clone(o.Message).(*raftpb.Message)
		if m.GetType() == raftpb.MsgVote {
			g.term = max(g.term, m.GetTerm())
		}
		in := Incoming{Message: m, Time: src.leaderTime()}
		node := to.node
		if o.Parts == nil {
			select {
			case node.inbox <- in:
			default: // lost, which raft repairs
			}
			continue
		}
		var parts [][]byte
		for p := range o.Parts {
			parts = append(parts, p)
		}
		go func() { _ = node.TakeSnapshot(context.Background(), in, parts) }()
	}
}

func (m *member) leaderTime() time.Time {
	if t, ok := m.node.Leads(); ok {
		return t
	}
	return time.Time{}
}

type noSink struct{}

func (noSink) Publish([]*storev1.Delta, *state.Snapshot) {}
func (noSink) Reset(*state.Snapshot)                     {}

func (g *group) start(name string, first bool) *member {
	g.t.Helper()
	g.mu.Lock()
	m := g.members[name]
	if m == nil {
		m = &member{name: name, disk: g.disks(g.rand.Uint64())}
		g.members[name] = m
	}
	g.mu.Unlock()
	w, err := fsm.ReadWriters()
	if err != nil {
		g.t.Fatal(err)
	}
	env := run.Machine("test")
	cfg := Config{
		Log: slog.New(slog.DiscardHandler), Storage: m.disk, Writers: w, Transport: &bus{g, name}, Sink: noSink{},
		Rand: g.rand, Now: time.Now, Ticker: env.Ticker, SnapshotEntries: 200, KeepEntries: 50,
	}
	if first {
		cfg.First = &First{
			Epoch:       &typesv1.Epoch{Number: 1, Nonce: 42},
			Transaction: &storev1.Transaction{RequestId: "first", Puts: []*storev1.Put{createService("zero", "zero", 0)}},
			Peer:        &storev1.RaftPeer{MachineId: name},
		}
	}
	node, err := Start(cfg)
	if err != nil {
		g.t.Fatalf("start %s: %v", name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.mu.Lock()
	m.node, m.cancel, m.done, m.up = node, cancel, make(chan error, 1), true
	g.mu.Unlock()
	go func() { m.done <- node.Run(ctx) }()
	return m
}

// crash ends a member as a power cut does.
func (g *group) crash(name string) {
	g.mu.Lock()
	m := g.members[name]
	m.up = false
	g.mu.Unlock()
	m.disk.Crash()
	m.cancel()
	<-m.done
}

func (g *group) stopAll() {
	for name, m := range g.members {
		if m.up {
			g.crash(name)
		}
	}
}

func (g *group) leader() *member {
	g.t.Helper()
	for range 200 {
		g.mu.Lock()
		for _, m := range g.members {
			if m.up && !g.cut[m.name] && m.node.View().Serves {
				g.mu.Unlock()
				return m
			}
		}
		g.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
	}
	g.t.Fatal("no leader after 10 s")
	return nil
}

func createService(id, name string, port uint32) *storev1.Put {
	s := &typesv1.Service{
		Meta: &typesv1.Meta{Id: id},
		Spec: &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: name}},
	}
	fields := []string{"spec"}
	if port != 0 {
		s.Endpoint = &typesv1.Endpoint{Ports: []*typesv1.PortConfig{{PublishedPort: port}}}
		fields = append(fields, "endpoint")
	}
	return &storev1.Put{Object: state.Wrap(s), Fields: fields, Create: true}
}

func tx(id string) *storev1.Transaction {
	return &storev1.Transaction{
		RequestId: id,
		Caller:    &storev1.Caller{Role: authzv1.Role_ROLE_OPERATOR, Name: "ann"},
		Puts:      []*storev1.Put{createService(id, id, 0)},
	}
}

// write tries until a leader has answered.
func (g *group) write(id string) *storev1.Outcome {
	g.t.Helper()
	for range 100 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		out, err := g.leader().node.Propose(ctx, tx(id))
		cancel()
		if err == nil {
			return out
		}
		time.Sleep(50 * time.Millisecond)
	}
	g.t.Fatalf("write %s: no answer", id)
	return nil
}

func (g *group) add(name string) *member {
	g.t.Helper()
	m := g.start(name, false)
	for range 50 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		err := g.leader().node.Add(ctx, &storev1.RaftPeer{RaftId: m.node.ID(), MachineId: name})
		cancel()
		if err == nil {
			return m
		}
		time.Sleep(50 * time.Millisecond)
	}
	g.t.Fatalf("add %s", name)
	return nil
}

func (g *group) three() {
	g.t.Helper()
	g.start("a", true)
	for _, name := range []string{"b", "c"} {
		m := g.add(name)
		for range 100 {
			if p := g.leader().node.View().Peer(m.node.ID()); p.GetVoter() {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if p := g.leader().node.View().Peer(m.node.ID()); !p.GetVoter() {
			g.t.Fatalf("%s did not become a voter", name)
		}
	}
}

// TestLearnerJoinsAndVotes: a store that joins gets the whole state as a learner and is made a voter by itself.
func TestLearnerJoinsAndVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		defer g.stopAll()
		g.three()
		out := g.write("one")
		if out.GetRefusal() != 0 {
			t.Fatal(out)
		}
		for name, m := range g.members {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			image, err := m.node.Linear(ctx)
			cancel()
			if err != nil {
				t.Fatalf("read on %s: %v", name, err)
			}
			if image.Snapshot().Service("one") == nil || image.Snapshot().Service("zero") == nil {
				t.Errorf("%s lacks a service that was acknowledged", name)
			}
		}
	})
}

// TestLeaderLost: another leads within 3 s, and nothing that was acknowledged is lost, also when the lost one returns. Two
// who stand for election in the same tick may split the votes (Raft, section 3.4): each such term costs one more election
// timeout, of 2 s at most.
func TestLeaderLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		defer g.stopAll()
		g.three()
		for i := range 3 {
			var acked []string
			for j := range 20 {
				id := fmt.Sprintf("s%d-%d", i, j)
				g.write(id)
				acked = append(acked, id)
			}
			lost, term := g.leader(), g.votes()
			g.crash(lost.name)
			began := time.Now()
			g.write(fmt.Sprintf("after-%d", i))
			elections := g.votes() - term
			bound := 3*time.Second + 2*electionTick*tick*time.Duration(elections-1)
			if took := time.Since(began); elections < 1 || took > bound {
				t.Errorf("round %d: writes work again after %s and %d elections", i, took, elections)
			}
			g.start(lost.name, false)
			time.Sleep(3 * time.Second)
			for name, m := range g.members {
				snap := m.node.View().Image.Snapshot()
				for _, id := range acked {
					if snap.Service(id) == nil {
						t.Errorf("round %d: %s has lost %s", i, name, id)
					}
				}
			}
		}
	})
}

// TestNothingLostWhenAllCrash: what was acknowledged is on a quorum's disks, not only in its memory.
func TestNothingLostWhenAllCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		defer g.stopAll()
		g.three()
		for i := range 30 {
			g.write(fmt.Sprintf("s%d", i))
			if i%10 == 9 {
				for name := range g.members {
					g.crash(name)
				}
				for name := range g.members {
					g.start(name, false)
				}
			}
		}
		snap := g.leader().node.View().Image.Snapshot()
		for i := range 30 {
			if snap.Service(fmt.Sprintf("s%d", i)) == nil {
				t.Errorf("s%d is lost", i)
			}
		}
	})
}

// TestRepeatedRequest: a request that is sent again, to another leader, returns the first outcome.
func TestRepeatedRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		defer g.stopAll()
		g.three()
		first := g.write("one")
		g.crash(g.leader().name)
		again := g.write("one")
		if !proto.Equal(first, again) {
			t.Fatalf("first %v, then %v", first, again)
		}
	})
}

// TestPartition: a leader without a quorum neither writes nor answers reads, and the rest goes on.
func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		defer g.stopAll()
		g.three()
		old := g.leader()
		g.mu.Lock()
		g.cut[old.name] = true
		g.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if out, err := old.node.Propose(ctx, tx("lonely")); err == nil {
			t.Errorf("a leader without a quorum wrote: %v", out)
		}
		g.write("one")
		ctx, cancel = context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if _, err := old.node.Linear(ctx); err == nil {
			t.Error("a member without a quorum answered a linearizable read")
		}
		g.mu.Lock()
		g.cut[old.name] = false
		g.mu.Unlock()
		time.Sleep(3 * time.Second)
		if old.node.View().Image.Snapshot().Service("one") == nil {
			t.Error("the member did not catch up after the partition")
		}
	})
}

// TestSnapshotCatchesUp: a member that was away for longer than the log reaches back gets a snapshot.
func TestSnapshotCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		defer g.stopAll()
		g.three()
		lead := g.leader()
		away := "b"
		if lead.name == away {
			away = "c"
		}
		g.crash(away)
		for i := range 600 {
			g.write(fmt.Sprintf("s%d", i))
		}
		m := g.start(away, false)
		time.Sleep(5 * time.Second)
		snap := m.node.View().Image.Snapshot()
		if snap.Version() != g.leader().node.View().Image.Snapshot().Version() || snap.Service("s599") == nil {
			t.Fatalf("after its return the member is at %v", snap.Version())
		}
	})
}

// TestRemovedStops: a member that was removed stops by itself, and the last manager cannot be removed.
func TestRemovedStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		defer g.stopAll()
		g.three()
		lead := g.leader()
		for name, m := range g.members {
			if name == lead.name {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			if err := lead.node.Remove(ctx, m.node.ID(), false); err != nil {
				t.Fatalf("remove %s: %v", name, err)
			}
			cancel()
			time.Sleep(time.Second)
		}
		if err := lead.node.Remove(context.Background(), lead.node.ID(), false); err == nil {
			t.Fatal("the last manager was removed")
		}
		g.write("alone")
	})
}

// TestClusterTime: a follower hears the leader's time, a new leader's is not earlier, and it goes on while nothing is written.
func TestClusterTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		defer g.stopAll()
		g.three()
		lead := g.leader()
		time.Sleep(10 * time.Second)
		before := lead.node.ClusterTime()
		for name, m := range g.members {
			if lag := before.Sub(m.node.ClusterTime()); lag > 500*time.Millisecond || lag < 0 {
				t.Errorf("%s is %s behind the leader's time", name, lag)
			}
		}
		g.crash(lead.name)
		g.write("one")
		if now := g.leader().node.ClusterTime(); now.Before(before) {
			t.Errorf("cluster time went back from %s to %s", before, now)
		}
	})
}
