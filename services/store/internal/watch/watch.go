package watch

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// hidden is a kind that nobody may watch: the data of secrets and configs, sealed as the secrets' is.
const hidden = typesv1.Kind_KIND_PAYLOAD

// kindSet is a set of kinds, a bit each.
type kindSet uint32

func kindsOf(kinds []typesv1.Kind) kindSet {
	var s kindSet
	for _, k := range kinds {
		if k > typesv1.Kind_KIND_UNSPECIFIED && k < 31 && k != hidden {
			s |= 1 << uint(k)
		}
	}
	return s
}

func (s kindSet) has(k typesv1.Kind) bool { return s&(1<<uint(k)) != 0 }

func (s kindSet) list() []typesv1.Kind {
	var out []typesv1.Kind
	for _, k := range state.Kinds() {
		if s.has(k) {
			out = append(out, k)
		}
	}
	return out
}

// reduced is in a set whose watchers may not have the cluster's keys and token hashes, sealed as they are.
const reduced kindSet = 1 << 31

// trim is the object as watchers of the set may have it.
func (s kindSet) trim(o *typesv1.Object) *typesv1.Object {
	c := o.GetCluster()
	if c == nil || s&reduced == 0 {
		return o
	}
	return state.Wrap(&typesv1.Cluster{
		Meta: c.GetMeta(), Spec: c.GetSpec(), DataPath: c.GetDataPath(),
		Authority: &typesv1.Authority{Bundle: c.GetAuthority().GetBundle()},
	})
}

// filter keeps the version also when no object is of the kinds: who waits for it must learn that it has come.
func (s kindSet) filter(d *storev1.Delta) *storev1.Delta {
	out := &storev1.Delta{Version: d.GetVersion(), ClusterTime: d.GetClusterTime()}
	for _, o := range d.GetPuts() {
		if s.has(state.KindOf(o)) {
			out.Puts = append(out.Puts, s.trim(o))
		}
	}
	for _, del := range d.GetDeletes() {
		if s.has(del.GetKind()) {
			out.Deletes = append(out.Deletes, del)
		}
	}
	return out
}

// Stream is what a watch is sent on.
type Stream interface {
	grpc.ServerStream
	Send(*storev1.WatchResponse) error
}

// watcher is one watch on its way.
type watcher struct {
	hub      *Hub
	stream   Stream
	kinds    kindSet
	at       state.Version // what the client holds
	bookmark uint64        // last one that was sent
	leave    bool          // guarded by the hub's lock: its client should go elsewhere
}

// Serve answers one watch until its stream ends. Keys says whether the client may have the cluster's sealed keys.
func (h *Hub) Serve(req *storev1.WatchRequest, stream Stream, keys bool) error {
	w := &watcher{hub: h, stream: stream, kinds: kindsOf(req.GetKinds()), at: state.VersionOf(req.GetFrom())}
	if w.kinds == 0 {
		return errs.New(errs.Invalid, "a watch needs at least one kind")
	}
	if !keys {
		w.kinds |= reduced
	}
	defer h.enter(w)()
	for {
		l := h.look(w)
		switch {
		case l.stopped:
			return errs.New(errs.Unavailable, "this store is stopping")
		case l.leave:
			return errs.New(errs.Unavailable, "this store is drained: watch elsewhere")
		}
		sent, err := w.send(l)
		if err != nil {
			return err
		}
		if sent {
			continue
		}
		select {
		case <-l.changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// send sends what there is; false means that there is nothing now.
func (w *watcher) send(l look) (bool, error) {
	head := l.snap.Version()
	switch {
	case head.IsZero():
		return false, nil // a member that has just joined: its state is on the way
	case w.at.IsZero():
		return true, w.snapshot(l.snap)
	case l.lost:
		reason := "the version that you hold has left this store's memory"
		if !w.at.SameEpoch(head) {
			reason = "the history is another one"
		}
		if err := w.stream.Send(&storev1.WatchResponse{Event: &storev1.WatchResponse_Resync{Resync: &storev1.Resync{Reason: reason}}}); err != nil {
			return false, err
		}
		return true, w.snapshot(l.snap)
	}
	for _, e := range l.events {
		m, err := e.prepared(w.kinds, w.stream)
		if err == nil {
			err = w.stream.SendMsg(m)
		}
		if err != nil {
			return false, err
		}
		w.at = state.VersionOf(e.delta.GetVersion())
	}
	if len(l.events) > 0 {
		return true, nil
	}
	// Only who has everything up to the bookmark may be told that there is nothing more.
	if l.bookmark.number > w.bookmark && w.at.Reaches(l.bookmark.version) && head.Reaches(w.at) {
		w.bookmark = l.bookmark.number
		return true, w.stream.Send(l.bookmark.response(w.at))
	}
	return false, nil
}

// chunkBytes is about how much one chunk holds; one object more may be in it.
const chunkBytes = 1 << 20

func (w *watcher) snapshot(snap *state.Snapshot) error {
	v, at := snap.Version().Proto(), timestamppb.New(snap.ClusterTime())
	chunk, size := &storev1.SnapshotChunk{Version: v, ClusterTime: at}, 0
	flush := func() error {
		err := w.stream.Send(&storev1.WatchResponse{Event: &storev1.WatchResponse_Chunk{Chunk: chunk}})
		chunk, size = &storev1.SnapshotChunk{Version: v, ClusterTime: at}, 0
		return err
	}
	for o := range snap.Objects(w.kinds.list()...) {
		chunk.Objects = append(chunk.Objects, w.kinds.trim(o))
		if size += proto.Size(o); size >= chunkBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	chunk.Last = true
	if err := flush(); err != nil {
		return err
	}
	w.at = snap.Version()
	return nil
}

// Times of the bookmarks. They are promised at most 500 ms apart.
const (
	bookmarkEvery   = 300 * time.Millisecond
	bookmarkTimeout = 2 * time.Second
)

// Source is where confirmed state comes from.
type Source interface {
	// Confirmed returns the version that the quorum holds now, and cluster time.
	Confirmed(ctx context.Context) (state.Version, time.Time, error)
}

// Run confirms bookmarks until ctx ends, then ends all watches. While there is no quorum there are no bookmarks, and that
// is what watchers go by.
func (h *Hub) Run(ctx context.Context, ticker func(time.Duration) run.Ticker, src Source) error {
	defer h.Stop()
	t := ticker(bookmarkEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C():
		}
		ask, cancel := context.WithTimeout(ctx, bookmarkTimeout)
		v, at, err := src.Confirmed(ask)
		cancel()
		if err == nil {
			h.Confirm(v, at)
		}
	}
}
