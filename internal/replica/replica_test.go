package replica_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/replica"
	"github.com/shoalproject/shoal/internal/replica/replicatest"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

func node(id string) *typesv1.Object {
	return state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: id}})
}

func nodes(n int) []*typesv1.Object {
	var out []*typesv1.Object
	for i := range n {
		out = append(out, node(fmt.Sprintf("n%02d", i)))
	}
	return out
}

// follow starts a replica that ends with the test.
func follow(t *testing.T, env run.Env, client storev1.WatchServiceClient, kinds ...typesv1.Kind) *replica.Replica {
	t.Helper()
	r := replica.New(env, client, kinds...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	return r
}

// TestFollow: the replica holds what the store holds, one swap a revision, and only the kinds that it asked for.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		store := replicatest.New(env, nodes(7)...)
		r := follow(t, env, storev1.NewWatchServiceClient(store.Dial(t)), typesv1.Kind_KIND_NODE)
		if r.Health() == nil {
			t.Error("healthy before there was a snapshot")
		}
		first := r.Changed()
		synctest.Wait()
		if got := r.Snapshot().Count(typesv1.Kind_KIND_NODE); got != 7 {
			t.Fatalf("%d nodes, want 7", got)
		}
		<-first
		if err := r.Health(); err != nil {
			t.Errorf("not healthy while it follows: %v", err)
		}
		before := r.Snapshot()
		store.Put(node("x"), node("y"))
		store.Put(state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: "web"}}))
		store.Delete(state.Key{Kind: typesv1.Kind_KIND_NODE, ID: "x"})
		synctest.Wait()
		after := r.Snapshot()
		if after.Version() != store.Snapshot().Version() {
			t.Errorf("at %v, the store at %v", after.Version(), store.Snapshot().Version())
		}
		if after.Node("x") != nil || after.Node("y") == nil || after.Service("web") != nil {
			t.Error("the deltas were not applied as asked for")
		}
		if before.Node("y") != nil {
			t.Error("an old snapshot has changed")
		}
	})
}

// TestBookmarks: they move cluster time and confirm; without a quorum nothing is confirmed.
func TestBookmarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		store := replicatest.New(env, nodes(1)...)
		r := follow(t, env, storev1.NewWatchServiceClient(store.Dial(t)), typesv1.Kind_KIND_NODE)
		synctest.Wait()
		confirmed, changed, at := r.Confirmed(), r.Changed(), r.Snapshot().ClusterTime()
		time.Sleep(501 * time.Millisecond)
		select {
		case <-confirmed:
		default:
			t.Error("no confirmation within 501 ms")
		}
		if moved := r.Snapshot().ClusterTime().Sub(at); moved <= 0 {
			t.Errorf("cluster time moved by %s", moved)
		}
		select {
		case <-changed:
			t.Error("a bookmark alone counts as a change")
		default:
		}
		store.SetQuorum(false)
		confirmed = r.Confirmed()
		store.Put(node("x"))
		time.Sleep(2 * time.Second)
		select {
		case <-confirmed:
			t.Error("confirmed without a quorum")
		default:
		}
		if r.Snapshot().Node("x") == nil {
			t.Error("a delta was held back")
		}
	})
}

// TestResume: after a broken stream it goes on from its version, with no resync and no swap to something older.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		store := replicatest.New(env, nodes(4)...)
		spy := &openings{WatchServiceClient: storev1.NewWatchServiceClient(store.Dial(t))}
		r := follow(t, env, spy, typesv1.Kind_KIND_NODE)
		synctest.Wait()
		held := r.Snapshot().Version()
		store.Break()
		synctest.Wait()
		if r.Health() == nil {
			t.Error("healthy with a broken stream")
		}
		v := store.Put(node("x"))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := r.WaitFor(ctx, v); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(spy.from) != 2 || spy.from[0] != (state.Version{}) || spy.from[1] != held {
			t.Errorf("opened from %v, want from nothing and from %v", spy.from, held)
		}
	})
}

type openings struct {
	storev1.WatchServiceClient
	from []state.Version
}

func (o *openings) Watch(ctx context.Context, req *storev1.WatchRequest, opts ...callOption) (watchClient, error) {
	o.from = append(o.from, state.VersionOf(req.GetFrom()))
	return o.WatchServiceClient.Watch(ctx, req, opts...)
}

// TestResync: a version that has left the ring, and another epoch, lead to one swap to the whole new state.
func TestResync(t *testing.T) {
	for name, fault := range map[string]func(*replicatest.Store){
		"left the ring": func(s *replicatest.Store) {
			s.Delete(state.Key{Kind: typesv1.Kind_KIND_NODE, ID: "n00"})
			s.Put(node("x"))
			s.Forget()
		},
		"restored": func(s *replicatest.Store) { s.Restore(node("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				env := testx.Env(t)
				store := replicatest.New(env, nodes(9)...)
				spy := &openings{WatchServiceClient: storev1.NewWatchServiceClient(store.Dial(t))}
				r := follow(t, env, spy, typesv1.Kind_KIND_NODE)
				synctest.Wait()
				store.Break()
				synctest.Wait()
				seen := swaps(t, r)
				fault(store)
				time.Sleep(time.Second)
				got := seen()
				if len(got) != 1 {
					t.Fatalf("%d swaps, want one", len(got))
				}
				if got[0].Node("x") == nil || got[0].Node("n00") != nil {
					t.Error("the swap is not to the store's state")
				}
				if got[0].Version() != store.Snapshot().Version() {
					t.Errorf("at %v, the store at %v", got[0].Version(), store.Snapshot().Version())
				}
			})
		})
	}
}

// swaps collects the snapshots that a replica goes through from now on.
func swaps(t *testing.T, r *replica.Replica) (collected func() []*state.Snapshot) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan []*state.Snapshot)
	changed := r.Changed()
	go func() {
		var out []*state.Snapshot
		for {
			select {
			case <-changed:
				changed = r.Changed()
				out = append(out, r.Snapshot())
			case <-ctx.Done():
				done <- out
				return
			}
		}
	}()
	return func() []*state.Snapshot {
		cancel()
		return <-done
	}
}

// TestSilence: a member that says nothing is left for another one.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		store := replicatest.New(env, nodes(1)...)
		spy := &openings{WatchServiceClient: storev1.NewWatchServiceClient(store.Dial(t))}
		follow(t, env, spy, typesv1.Kind_KIND_NODE)
		synctest.Wait()
		store.SetQuorum(false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(spy.from); n < 3 || n > 8 {
			t.Errorf("%d streams opened in 10 s of silence, want a few", n)
		}
	})
}

// scripted is a watch whose streams each send what a script says, and then wait.
type scripted struct {
	storev1.WatchServiceClient
	scripts [][]*storev1.WatchResponse
}

func (s *scripted) Watch(ctx context.Context, _ *storev1.WatchRequest, _ ...callOption) (watchClient, error) {
	if len(s.scripts) == 0 {
		return nil, errs.New(errs.Unavailable, "no more members")
	}
	script := s.scripts[0]
	s.scripts = s.scripts[1:]
	return &scriptedStream{ctx: ctx, script: script}, nil
}

type scriptedStream struct {
	watchClient
	ctx    context.Context
	script []*storev1.WatchResponse
}

func (s *scriptedStream) Recv() (*storev1.WatchResponse, error) {
	if len(s.script) == 0 {
		<-s.ctx.Done()
		return nil, s.ctx.Err()
	}
	msg := s.script[0]
	s.script = s.script[1:]
	return msg, nil
}

// TestNeverBack: a member that knows less than we do is not believed, whether it sends a snapshot, a delta or a bookmark.
func TestNeverBack(t *testing.T) {
	chunk := func(v state.Version, objects ...*typesv1.Object) *storev1.WatchResponse {
		return &storev1.WatchResponse{Event: &storev1.WatchResponse_Chunk{Chunk: &storev1.SnapshotChunk{Version: v.Proto(), Objects: objects, Last: true}}}
	}
	delta := func(v state.Version, objects ...*typesv1.Object) *storev1.WatchResponse {
		return &storev1.WatchResponse{Event: &storev1.WatchResponse_Delta{Delta: &storev1.Delta{Version: v.Proto(), Puts: objects}}}
	}
	bookmark := func(v state.Version) *storev1.WatchResponse {
		return &storev1.WatchResponse{Event: &storev1.WatchResponse_Bookmark{Bookmark: &storev1.Bookmark{Version: v.Proto()}}}
	}
	at := func(epoch, revision uint64) state.Version {
		return state.Version{EpochNumber: epoch, EpochNonce: 1, Revision: revision}
	}
	synctest.Test(t, func(t *testing.T) {
		r := follow(t, testx.Env(t), &scripted{scripts: [][]*storev1.WatchResponse{
			{chunk(at(2, 10), node("a"))},
			{chunk(at(2, 9), node("old"))},
			{chunk(at(1, 99), node("old"))},
			{delta(at(2, 10), node("old")), bookmark(at(2, 9)), delta(at(3, 11), node("old"))},
			{delta(at(2, 11), node("b"))},
		}}, typesv1.Kind_KIND_NODE)
		synctest.Wait()
		confirmed := r.Confirmed()
		time.Sleep(20 * time.Second)
		if s := r.Snapshot(); s.Node("old") != nil || s.Node("b") == nil || s.Version() != at(2, 11) {
			t.Errorf("at %v, old %v, b %v", s.Version(), s.Node("old"), s.Node("b"))
		}
		select {
		case <-confirmed:
			t.Error("a bookmark behind us counts as a confirmation")
		default:
		}
		if err := r.WaitFor(t.Context(), at(1, 5)); !errs.Is(err, errs.Conflict) {
			t.Errorf("waiting for a replaced history gave %v", err)
		}
	})
}
