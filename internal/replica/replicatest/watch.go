package replicatest

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// chunkSize is small, so that tests see more than one chunk.
const chunkSize = 3

// Watch serves one stream.
func (s *Store) Watch(req *storev1.WatchRequest, out storev1.WatchService_WatchServer) error {
	if len(req.GetKinds()) == 0 {
		return errs.New(errs.Invalid, "watch: no kinds")
	}
	w := watcher{s: s, out: out, kinds: req.GetKinds(), at: state.VersionOf(req.GetFrom())}
	s.mu.Lock()
	broken := s.broken
	s.mu.Unlock()
	bookmarks := time.NewTicker(bookmarkPeriod)
	defer bookmarks.Stop()
	bookmark := true
	for {
		changed, err := w.catchUp(bookmark)
		if err != nil {
			return err
		}
		bookmark = false
		select {
		case <-changed:
		case <-bookmarks.C:
			bookmark = true
		case <-broken:
			return errs.New(errs.Unavailable, "the member stops")
		case <-out.Context().Done():
			return out.Context().Err()
		}
	}
}

type watcher struct {
	s     *Store
	out   storev1.WatchService_WatchServer
	kinds []typesv1.Kind
	at    state.Version
}

// catchUp sends what the client lacks, then a bookmark if one is due and the quorum confirms it.
func (w *watcher) catchUp(bookmark bool) (changed <-chan struct{}, err error) {
	w.s.mu.Lock()
	snapshot, deltas, changed, quorum, mute := w.s.snapshot, slices.Clone(w.s.deltas), w.s.changed, w.s.quorum, w.s.mute
	w.s.mu.Unlock()
	if mute {
		return changed, nil
	}
	if !w.follows(snapshot, deltas) {
		if !w.at.IsZero() {
			resync := &storev1.Resync{Reason: "that version cannot be followed"}
			if err := w.out.Send(&storev1.WatchResponse{Event: &storev1.WatchResponse_Resync{Resync: resync}}); err != nil {
				return nil, err
			}
		}
		if err := w.sendSnapshot(snapshot); err != nil {
			return nil, err
		}
		w.at = snapshot.Version()
	}
	for _, d := range deltas {
		if d.GetVersion().GetRevision() <= w.at.Revision {
			continue
		}
		if err := w.out.Send(&storev1.WatchResponse{Event: &storev1.WatchResponse_Delta{Delta: w.filter(d)}}); err != nil {
			return nil, err
		}
		w.at = state.VersionOf(d.GetVersion())
	}
	if bookmark && quorum {
		b := &storev1.Bookmark{Version: w.at.Proto(), ClusterTime: timestamppb.New(w.s.now())}
		return changed, w.out.Send(&storev1.WatchResponse{Event: &storev1.WatchResponse_Bookmark{Bookmark: b}})
	}
	return changed, nil
}

// follows reports whether the history at hand goes on from where the client is.
func (w *watcher) follows(snapshot *state.Snapshot, deltas []*storev1.Delta) bool {
	if !w.at.SameEpoch(snapshot.Version()) {
		return false
	}
	return w.at.Revision == snapshot.Version().Revision ||
		len(deltas) > 0 && deltas[0].GetVersion().GetRevision() <= w.at.Revision+1
}

func (w *watcher) sendSnapshot(snapshot *state.Snapshot) error {
	objects := slices.Collect(snapshot.Objects(w.kinds...))
	for {
		n := min(chunkSize, len(objects))
		chunk := &storev1.SnapshotChunk{
			Version: snapshot.Version().Proto(), ClusterTime: timestamppb.New(snapshot.ClusterTime()),
			Objects: objects[:n], Last: n == len(objects),
		}
		if err := w.out.Send(&storev1.WatchResponse{Event: &storev1.WatchResponse_Chunk{Chunk: chunk}}); err != nil {
			return err
		}
		if objects = objects[n:]; chunk.GetLast() {
			return nil
		}
	}
}

// filter keeps the kinds asked for. A revision without any is sent too, empty.
func (w *watcher) filter(d *storev1.Delta) *storev1.Delta {
	out := &storev1.Delta{Version: d.GetVersion(), ClusterTime: d.GetClusterTime()}
	for _, o := range d.GetPuts() {
		if slices.Contains(w.kinds, state.KindOf(o)) {
			out.Puts = append(out.Puts, o)
		}
	}
	for _, del := range d.GetDeletes() {
		if slices.Contains(w.kinds, del.GetKind()) {
			out.Deletes = append(out.Deletes, del)
		}
	}
	return out
}
