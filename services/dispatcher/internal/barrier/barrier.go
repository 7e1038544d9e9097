// Package barrier tells which revision of the mesh every live meshproxy has in force, so that a task is stopped only when
// nobody sends it new connections.
//
// It owns the lowest of this dispatcher's meshproxies and the publication of it in the dispatcher's own Member, which is
// written only while a task waits for it: a write a revision would feed on itself. It is safe for concurrent use.
package barrier

import (
	"context"
	"log/slog"
	"math"
	"sync"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// View is the replica.
type View interface {
	Snapshot() *state.Snapshot
	Changed() <-chan struct{}
}

// Barrier gathers what meshproxies report.
type Barrier struct {
	member string // own member id
	self   string // own machine id
	log    *slog.Logger
	view   View
	commit *commit.Committer
	live   func() []string // other live dispatchers

	mu      sync.Mutex // guards below
	streams map[*Stream]uint64
	applied uint64
	risen   chan struct{} // closed and replaced when applied rises
	news    chan struct{} // closed and replaced when a report changes the own lowest
}

// New makes one. Live lists the machine ids of the other live dispatchers.
func New(self, member string, log *slog.Logger, view View, c *commit.Committer, live func() []string) *Barrier {
	return &Barrier{
		self: self, member: member, log: log, view: view, commit: c, live: live,
		streams: map[*Stream]uint64{}, risen: make(chan struct{}), news: make(chan struct{}),
	}
}

// Stream is one meshproxy's place in the barrier.
type Stream struct{ b *Barrier }

// Join adds a meshproxy that has nothing in force yet.
func (b *Barrier) Join() *Stream {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &Stream{b: b}
	b.streams[s] = 0
	return s
}

// Report notes that all up to a revision is in force.
func (s *Stream) Report(revision uint64) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if old, ok := s.b.streams[s]; ok && revision > old {
		s.b.streams[s] = revision
		s.b.ring()
	}
}

// Leave takes the meshproxy out.
func (s *Stream) Leave() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	delete(s.b.streams, s)
	s.b.ring()
}

// ring needs the lock.
func (b *Barrier) ring() {
	close(b.news)
	b.news = make(chan struct{})
}

// Applied is the lowest revision in force everywhere.
func (b *Barrier) Applied() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.applied
}

// Risen is closed when Applied rises next.
func (b *Barrier) Risen() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.risen
}

// own is the lowest revision of this dispatcher's meshproxies, at most limit.
func (b *Barrier) own(limit uint64) (lowest uint64, news <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	lowest = limit
	for _, r := range b.streams {
		lowest = min(lowest, r)
	}
	return lowest, b.news
}

// Run keeps the barrier until ctx ends.
func (b *Barrier) Run(ctx context.Context) error {
	for {
		changed := b.view.Changed()
		s := b.view.Snapshot()
		own, news := b.own(s.Version().Revision)
		others := b.others(s)
		b.raise(min(own, others))
		b.publish(ctx, s, own)
		select {
		case <-changed:
		case <-news:
		case <-ctx.Done():
			return nil
		}
	}
}

func (b *Barrier) raise(to uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if to > b.applied {
		b.applied = to
		close(b.risen)
		b.risen = make(chan struct{})
	}
}

// others is the lowest that other dispatchers published. One whose lease has run out goes on counting with its last value
// while a machine that is up is bound to it.
func (b *Barrier) others(s *state.Snapshot) uint64 {
	counted := map[string]bool{}
	for _, id := range b.live() {
		counted[id] = true
	}
	for n := range s.Nodes() {
		if n.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_READY {
			counted[n.GetStatus().GetSession().GetDispatcherId()] = true
		}
	}
	lowest := uint64(math.MaxUint64)
	for m := range s.MembersOfRole(authzv1.Role_ROLE_DISPATCHER) {
		if m.GetMachineId() != b.self && counted[m.GetMachineId()] {
			lowest = min(lowest, m.GetAppliedRevision())
		}
	}
	return lowest
}

// publish writes the own lowest when another dispatcher's task may wait for it.
func (b *Barrier) publish(ctx context.Context, s *state.Snapshot, own uint64) {
	me := s.Member(b.member)
	if me == nil || len(b.live()) == 0 {
		return
	}
	wanted := highestStop(s)
	if wanted <= me.GetAppliedRevision() || own < wanted {
		return
	}
	m := &typesv1.Member{Meta: &typesv1.Meta{Id: b.member}, AppliedRevision: own}
	tx := &storev1.Transaction{Puts: []*storev1.Put{commit.Put(state.Wrap(m), "applied_revision")}}
	if _, err := b.commit.Do(ctx, tx); err != nil && ctx.Err() == nil {
		b.log.Warn("mesh barrier not published, trying again", "error", err)
	}
}

// highestStop is the highest revision that a stopping task may wait for.
func highestStop(s *state.Snapshot) uint64 {
	var high uint64
	for t := range s.Tasks() {
		if t.GetDecided().GetDesired() > typesv1.TaskState_TASK_STATE_RUNNING &&
			t.GetDecided().GetNodeId() != "" && !state.Terminal(t.GetObserved().GetState()) {
			high = max(high, t.GetMeta().GetRevision())
		}
	}
	return high
}
