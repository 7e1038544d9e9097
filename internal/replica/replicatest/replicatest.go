// Package replicatest is a small store in memory for the tests of those who watch and commit: one member, no Raft, the
// same answers as the real one for preconditions, claims, references, deltas, bookmarks and resyncs.
//
// Only tests import it. It must never be needed by a program, and it checks no roles. A Store is safe for concurrent use.
package replicatest

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// bookmarkPeriod is the real store's longest.
const bookmarkPeriod = 500 * time.Millisecond

// Store is the fake.
type Store struct {
	storev1.UnimplementedWatchServiceServer
	storev1.UnimplementedCommitServiceServer
	now  func() time.Time
	hook hook

	mu       sync.Mutex // guards all below
	snapshot *state.Snapshot
	deltas   []*storev1.Delta            // of this epoch, as far back as may be resumed from
	outcomes map[string]*storev1.Outcome // by request id
	changed  chan struct{}               // closed and replaced at each change
	broken   chan struct{}               // closed and replaced by Break
	mute     bool                        // whether streams send nothing
	quorum   bool                        // whether commits and bookmarks go on
	commits  int                         // transactions seen
	lose     int                         // answers to lose after the commit
}

// hook is a test's own fault. Its calls are one after the other, so that it may keep counts.
type hook struct {
	mu sync.Mutex // guards f and its calls
	f  func(*storev1.Transaction) error
}

func (h *hook) set(f func(*storev1.Transaction) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.f = f
}

func (h *hook) call(tx *storev1.Transaction) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f == nil {
		return nil
	}
	return h.f(tx)
}

// New makes a store of epoch 1 with these objects at revision 1.
func New(env run.Env, objects ...*typesv1.Object) *Store {
	s := &Store{
		now: env.Now, snapshot: state.Empty(), outcomes: map[string]*storev1.Outcome{},
		changed: make(chan struct{}), broken: make(chan struct{}), quorum: true,
	}
	s.Put(objects...)
	return s
}

// Dial serves the store in memory until the test ends and returns a connection to it.
func (s *Store) Dial(tb testing.TB) *grpc.ClientConn {
	tb.Helper()
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.UnaryInterceptor(errs.UnaryServer()), grpc.StreamInterceptor(errs.StreamServer()))
	storev1.RegisterWatchServiceServer(server, s)
	storev1.RegisterCommitServiceServer(server, s)
	served := run.Async(context.Background(), func(context.Context) (struct{}, error) { return struct{}{}, server.Serve(l) })
	conn, err := grpc.NewClient("passthrough:///store",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(errs.UnaryClient()), grpc.WithStreamInterceptor(errs.StreamClient()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		conn.Close()
		server.Stop()
		<-served
	})
	return conn
}

// Snapshot is the state now.
func (s *Store) Snapshot() *state.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot
}

// Commits counts the transactions that reached the store, refused ones too.
func (s *Store) Commits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits
}

// Put writes objects as they are, in one revision, whoever owns their fields.
func (s *Store) Put(objects ...*typesv1.Object) state.Version {
	return s.change(func(t *state.Txn) []*storev1.Delete {
		for _, o := range objects {
			t.Put(o)
		}
		return nil
	}, objects)
}

// Delete removes objects in one revision.
func (s *Store) Delete(keys ...state.Key) state.Version {
	return s.change(func(t *state.Txn) []*storev1.Delete {
		var out []*storev1.Delete
		for _, k := range keys {
			t.Delete(k)
			out = append(out, &storev1.Delete{Kind: k.Kind, Id: k.ID})
		}
		return out
	}, nil)
}

func (s *Store) change(f func(*state.Txn) []*storev1.Delete, puts []*typesv1.Object) state.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.snapshot.Begin()
	deletes := f(t)
	return s.advance(t, puts, deletes)
}

// advance needs the lock. It gives the objects their revision and times, as the real state machine does.
func (s *Store) advance(t *state.Txn, puts []*typesv1.Object, deletes []*storev1.Delete) state.Version {
	v := s.snapshot.Version()
	if v.IsZero() {
		v = state.Version{EpochNumber: 1, EpochNonce: 1}
	}
	v.Revision++
	at := timestamppb.New(s.now())
	for _, o := range puts {
		meta := state.MetaOf(o)
		meta.Revision, meta.UpdatedAt = v.Revision, at
		if meta.GetCreatedAt() == nil {
			meta.CreatedAt = at
		}
	}
	s.snapshot = t.Commit(v, at.AsTime())
	s.deltas = append(s.deltas, &storev1.Delta{Version: v.Proto(), ClusterTime: at, Puts: puts, Deletes: deletes})
	close(s.changed)
	s.changed = make(chan struct{})
	return v
}

// SetQuorum switches commits and bookmarks off and on, as an election does.
func (s *Store) SetQuorum(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quorum = on
	close(s.changed)
	s.changed = make(chan struct{})
}

// Mute makes streams send nothing until it is switched off, as a member that is cut off does; commits go on.
func (s *Store) Mute(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = on
	close(s.changed)
	s.changed = make(chan struct{})
}

// Break ends all streams.
func (s *Store) Break() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.broken)
	s.broken = make(chan struct{})
}

// Forget drops the history: who resumes from before now is told to resync.
func (s *Store) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deltas = nil
}

// Restore begins another epoch with these objects alone, and ends all streams.
func (s *Store) Restore(objects ...*typesv1.Object) {
	s.mu.Lock()
	v := s.snapshot.Version()
	s.snapshot = state.Empty().Begin().Commit(state.Version{EpochNumber: v.EpochNumber + 1, EpochNonce: v.EpochNonce + 7}, time.Time{})
	s.deltas, s.outcomes = nil, map[string]*storev1.Outcome{}
	s.mu.Unlock()
	s.Put(objects...)
	s.Break()
}

// LoseAnswers makes the next n commits take effect without an answer.
func (s *Store) LoseAnswers(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = n
}

// OnCommit calls f with each transaction before it is applied, one at a time; an error is its answer. A test that reads
// what f has noted calls synctest.Wait first.
func (s *Store) OnCommit(f func(*storev1.Transaction) error) { s.hook.set(f) }
