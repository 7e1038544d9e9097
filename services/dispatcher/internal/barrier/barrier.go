// Package barrier tells which revision of the mesh every live meshproxy has in force, so that a task is stopped only when
// nobody sends it new connections.
//
// It owns the lowest of this dispatcher's meshproxies and the publication of it in the dispatcher's own Member, which is
// written only while somebody waits for it: a write a revision would feed on itself. A Barrier and its Streams are safe for
// concurrent use; Run has one caller.
package barrier

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	// pace is the least time between two looks: thousands of meshproxies answer each change.
	pace = 10 * time.Millisecond
	// publishGap is the least time between two publications: each is a revision, which all meshproxies answer again.
	publishGap     = 50 * time.Millisecond
	publishTimeout = time.Second
	// idle is how often to look when nothing changes: for what failed, and for meshproxies whose time is up.
	idle = 500 * time.Millisecond
)

// View is the replica.
type View interface {
	Snapshot() *state.Snapshot
	Changed() <-chan struct{}
}

// Barrier gathers what meshproxies report.
type Barrier struct {
	member, self string // own member and machine id
	linger       time.Duration
	log          *slog.Logger
	view         View
	commit       *commit.Committer
	live         func() []string // other live dispatchers

	mu      sync.Mutex // guards below
	streams map[*Stream]struct{}
	applied state.Version
	risen   chan struct{} // closed and replaced when applied rises
	news    chan struct{} // closed and replaced when a stream's report changes
}

// New makes one. Live lists the machine ids of the other live dispatchers. Linger is how long a meshproxy whose stream has
// ended goes on counting: it has its old tables in force while it looks for another dispatcher.
func New(self, member string, log *slog.Logger, view View, c *commit.Committer, live func() []string, linger time.Duration) *Barrier {
	return &Barrier{
		self: self, member: member, linger: linger, log: log, view: view, commit: c, live: live,
		streams: map[*Stream]struct{}{}, risen: make(chan struct{}), news: make(chan struct{}),
	}
}

// Stream is one meshproxy's place in the barrier.
type Stream struct {
	b    *Barrier
	node string

	// Guarded by the barrier's lock.
	applied state.Version
	left    time.Time // zero while it is open
}

// Join adds the meshproxy of a machine, which has nothing in force yet. It takes the place of one that lingers.
func (b *Barrier) Join(node string) *Stream {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.streams {
		if s.node == node && !s.left.IsZero() {
			delete(b.streams, s)
		}
	}
	s := &Stream{b: b, node: node}
	b.streams[s] = struct{}{}
	return s
}

// Report notes that all up to a version is in force.
func (s *Stream) Report(v state.Version) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.left.IsZero() && !s.applied.Reaches(v) {
		s.applied = v
		s.b.ring()
	}
}

// Leave ends the stream. It is counted a while longer.
func (s *Stream) Leave() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.left = time.Now()
}

// ring needs the lock.
func (b *Barrier) ring() {
	close(b.news)
	b.news = make(chan struct{})
}

// Applied is the lowest version in force everywhere.
func (b *Barrier) Applied() state.Version {
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

// own is the lowest revision of this dispatcher's meshproxies, at most that of the snapshot. What one has in force of
// another epoch is nothing.
func (b *Barrier) own(at state.Version, now time.Time) (lowest uint64, news <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	lowest = at.Revision
	for s := range b.streams {
		switch {
		case !s.left.IsZero() && now.Sub(s.left) >= b.linger:
			delete(b.streams, s)
		case s.applied.SameEpoch(at):
			lowest = min(lowest, s.applied.Revision)
		default:
			lowest = 0
		}
	}
	return lowest, b.news
}

// Run keeps the barrier until ctx ends.
func (b *Barrier) Run(ctx context.Context) error {
	// Meshproxies of an earlier life of this dispatcher are on their way back: until then it can't say how far they are.
	start := time.Now()
	var published time.Time
	var waits waits
	for {
		changed := b.view.Changed()
		s, now, wait := b.view.Snapshot(), time.Now(), idle
		own, news := b.own(s.Version(), now)
		if now.Sub(start) < b.linger {
			own = 0
		}
		b.raise(s.Version(), min(own, b.others(s)))
		if b.wanted(s, own, &waits) {
			if now.Sub(published) < publishGap {
				wait = publishGap
			} else {
				b.publish(ctx, own)
				published = time.Now()
			}
		}
		if !rest(ctx, wait, changed, news) {
			return nil
		}
	}
}

// rest waits for something to do, and at least the pace. It is false at the end.
func rest(ctx context.Context, most time.Duration, changed, news <-chan struct{}) bool {
	tick, least := time.NewTimer(most), time.NewTimer(pace)
	defer tick.Stop()
	defer least.Stop()
	select {
	case <-changed:
	case <-news:
	case <-tick.C:
	case <-ctx.Done():
		return false
	}
	select {
	case <-least.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// raise sets what is in force everywhere. Another epoch is another count.
func (b *Barrier) raise(at state.Version, to uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at.Revision = to
	if b.applied.Reaches(at) {
		return
	}
	b.applied = at
	close(b.risen)
	b.risen = make(chan struct{})
}

// others is the lowest that other dispatchers published. One whose lease has run out goes on counting with its last value
// while a machine that is up is bound to it.
func (b *Barrier) others(s *state.Snapshot) uint64 {
	counted := map[string]bool{}
	for _, id := range b.live() {
		counted[id] = true
	}
	lowest := uint64(math.MaxUint64)
	for m := range s.MembersOfRole(authzv1.Role_ROLE_DISPATCHER) {
		id := m.GetMachineId()
		if id != b.self && m.GetAppliedRevision() < lowest && (counted[id] || hasMachines(s, id)) {
			lowest = m.GetAppliedRevision()
		}
	}
	return lowest
}

func hasMachines(s *state.Snapshot, dispatcher string) bool {
	for n := range s.Nodes() {
		st := n.GetStatus()
		if st.GetState() == typesv1.NodeState_NODE_STATE_READY && st.GetSession().GetDispatcherId() == dispatcher {
			return true
		}
	}
	return false
}

// wanted reports whether somebody may wait for what this one has not published yet: agents of other dispatchers to stop a
// task, the scheduler to begin it.
func (b *Barrier) wanted(s *state.Snapshot, own uint64, w *waits) bool {
	others := len(b.live()) > 0
	if !others && !anyStartFirst(s) {
		return false // and no look at all tasks, which would be one for each change of thousands
	}
	w.look(s)
	highest := w.start
	if others {
		highest = max(highest, w.stop)
	}
	me := s.Member(b.member)
	return me != nil && highest > me.GetAppliedRevision() && own >= highest
}

func (b *Barrier) publish(ctx context.Context, own uint64) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	m := &typesv1.Member{Meta: &typesv1.Meta{Id: b.member}, AppliedRevision: own}
	tx := &storev1.Transaction{Puts: []*storev1.Put{commit.Put(state.Wrap(m), "applied_revision")}}
	if _, err := b.commit.Do(ctx, tx); err != nil {
		b.log.Warn("mesh barrier not published, trying again", "error", err)
	}
}
