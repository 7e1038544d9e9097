package watch

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// client is a stream that a test reads. Events that the hub has encoded for all are counted, not read: their content is
// what filter makes, which has a test of its own.
type client struct {
	grpc.ServerStream
	ctx    context.Context
	events chan string
}

func (c *client) Context() context.Context { return c.ctx }

func (c *client) Send(r *storev1.WatchResponse) error {
	text := ""
	switch e := r.GetEvent().(type) {
	case *storev1.WatchResponse_Chunk:
		text = fmt.Sprintf("snapshot %d (%d objects)", e.Chunk.GetVersion().GetRevision(), len(e.Chunk.GetObjects()))
	case *storev1.WatchResponse_Bookmark:
		text = fmt.Sprintf("bookmark %d", e.Bookmark.GetVersion().GetRevision())
	case *storev1.WatchResponse_Resync:
		text = "resync: " + e.Resync.GetReason()
	}
	return c.put(text)
}

func (c *client) SendMsg(any) error { return c.put("delta") }

func (c *client) put(text string) error {
	select {
	case c.events <- text:
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

// history makes a hub with revisions up to last, each a service.
type history struct {
	hub  *Hub
	snap *state.Snapshot
}

func newHistory() *history { return &history{hub: NewHub(), snap: state.Empty()} }

// add publishes n revisions at once: a watcher that looks between two of them would see a snapshot of the first.
func (h *history) add(n int) {
	var deltas []*storev1.Delta
	for range n {
		v := h.snap.Version()
		v.EpochNumber, v.EpochNonce, v.Revision = 1, 7, v.Revision+1
		d := &storev1.Delta{Version: v.Proto(), ClusterTime: timestamppb.New(time.Unix(int64(v.Revision), 0)), Puts: []*typesv1.Object{
			state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: fmt.Sprint(v.Revision)}}),
		}}
		h.snap = h.snap.Apply(d)
		deltas = append(deltas, d)
	}
	h.hub.Publish(deltas, h.snap)
}

func at(revision uint64) *typesv1.Version {
	return state.Version{EpochNumber: 1, EpochNonce: 7, Revision: revision}.Proto()
}

// follow starts a watch; next is what came in, "" when nothing has.
func follow(t *testing.T, h *history, from *typesv1.Version) (next func() string) {
	ctx, cancel := context.WithCancel(context.Background())
	c := &client{ctx: ctx, events: make(chan string, 4)}
	done := make(chan error, 1)
	go func() {
		done <- h.hub.Serve(&storev1.WatchRequest{From: from, Kinds: []typesv1.Kind{typesv1.Kind_KIND_SERVICE}}, c, false)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return func() string {
		synctest.Wait()
		select {
		case e := <-c.events:
			return e
		default:
			return ""
		}
	}
}

func expect(t *testing.T, next func() string, want ...string) {
	t.Helper()
	for _, w := range append(want, "") {
		if got := next(); got != w {
			t.Fatalf("got %q, want %q", got, w)
		}
	}
}

func prime(h *history) {
	// PreparedMsg needs a real stream; the tests put what the first watcher would have encoded.
	for _, e := range h.hub.ring {
		e.encoded[kindsOf([]typesv1.Kind{typesv1.Kind_KIND_SERVICE})|reduced] = &grpc.PreparedMsg{}
	}
}

// TestFollow: a snapshot, then each revision once, then bookmarks that never run ahead of what was sent.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory()
		next := follow(t, h, nil)
		expect(t, next) // a member that has no state yet waits
		h.add(2)
		expect(t, next, "snapshot 2 (2 objects)")
		h.hub.Confirm(h.snap.Version(), time.Unix(9, 0))
		expect(t, next, "bookmark 2")
		expect(t, next)
		ahead := h.snap.Version()
		ahead.Revision += 5
		h.hub.Confirm(ahead, time.Unix(10, 0))
		expect(t, next) // confirmed elsewhere, not applied here yet
	})
}

// TestResume: a version in the ring goes on from there; one that is gone, or of another history, is told so and gets a
// snapshot; one that this member has not reached yet waits.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory()
		h.add(6)
		prime(h)
		next := follow(t, h, at(4))
		expect(t, next, "delta", "delta")
		other := follow(t, h, state.Version{EpochNumber: 1, EpochNonce: 8, Revision: 4}.Proto())
		expect(t, other, "resync: the history is another one", "snapshot 6 (6 objects)")
		h.hub.Reset(h.snap)
		old := follow(t, h, at(4))
		expect(t, old, "resync: the version that you hold has left this store's memory", "snapshot 6 (6 objects)")
		early := follow(t, h, at(8))
		expect(t, early)
		h.hub.Confirm(h.snap.Version(), time.Unix(9, 0))
		expect(t, early) // it knows more than this member: no bookmark for it
	})
}

// TestSpan: a cluster with little to do does not keep hours of what it did, however few deltas that is.
func TestSpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory()
		h.add(1000) // one a second of cluster time
		prime(h)
		within := uint64(ringSpan / time.Second)
		expect(t, follow(t, h, at(1000-2)), "delta", "delta")
		expect(t, follow(t, h, at(1000-within-2)), "resync: the version that you hold has left this store's memory", "snapshot 1000 (1000 objects)")
		if got := uint64(len(h.hub.ring)); got != within+1 {
			t.Errorf("the ring has %d deltas, want those of the last %s", got, ringSpan)
		}
	})
}

// TestSlow: nobody waits for a watcher that does not read; when it has fallen off the ring it is told to start again, and
// skips nothing silently.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory()
		h.add(8)
		prime(h)
		next := follow(t, h, at(1)) // it has room for four events, and a fifth on its way
		synctest.Wait()
		h.add(ringDeltas + 1)
		expect(t, next, "delta", "delta", "delta", "delta", "delta", "delta", "delta",
			"resync: the version that you hold has left this store's memory", fmt.Sprintf("snapshot %d (%d objects)", ringDeltas+9, ringDeltas+9))
	})
}

// TestFilter: other kinds are left out and the version is kept; the cluster's sealed parts stay with those who may have them.
func TestFilter(t *testing.T) {
	d := &storev1.Delta{Version: at(3), Puts: []*typesv1.Object{
		state.Wrap(&typesv1.Task{Meta: &typesv1.Meta{Id: "t"}}),
		state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c"}, Authority: &typesv1.Authority{
			Bundle: []byte("public"), RootKey: &typesv1.SealedBytes{Data: []byte("sealed")},
		}}),
	}, Deletes: []*storev1.Delete{{Kind: typesv1.Kind_KIND_TASK, Id: "x"}}}
	kinds := kindsOf([]typesv1.Kind{typesv1.Kind_KIND_CLUSTER})
	got := (kinds | reduced).filter(d)
	if len(got.GetPuts()) != 1 || len(got.GetDeletes()) != 0 || got.GetVersion().GetRevision() != 3 {
		t.Errorf("filtered: %v", got)
	}
	if a := got.GetPuts()[0].GetCluster().GetAuthority(); a.GetRootKey() != nil || string(a.GetBundle()) != "public" {
		t.Errorf("reduced: %v", a)
	}
	if a := kinds.filter(d).GetPuts()[0].GetCluster().GetAuthority(); a.GetRootKey() == nil {
		t.Error("who may have the keys lacks them")
	}
}

// TestDataIsNotWatched: whatever kinds a watcher names, it gets no data of secrets and configs, neither in a snapshot nor in a
// delta.
func TestDataIsNotWatched(t *testing.T) {
	d := &storev1.Delta{Version: at(3), Puts: []*typesv1.Object{
		state.Wrap(&typesv1.Payload{Meta: &typesv1.Meta{Id: "s.1"}, Clear: []byte("data")}),
		state.Wrap(&typesv1.Config{Meta: &typesv1.Meta{Id: "s"}}),
	}}
	all := kindsOf(state.Kinds())
	if got := all.filter(d).GetPuts(); len(got) != 1 || got[0].GetConfig() == nil {
		t.Errorf("a delta has %v", got)
	}
	if all.has(typesv1.Kind_KIND_PAYLOAD) || kindsOf([]typesv1.Kind{typesv1.Kind_KIND_PAYLOAD}) != 0 {
		t.Error("a watch of data was admitted")
	}
}
