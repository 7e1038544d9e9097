// Package watch sends the store's state and every change of it to whoever follows.
//
// It owns a ring of the last deltas, each encoded once for all watchers of the same kinds, and the rules of resuming: a
// version that cannot be followed is answered with a resync, never skipped silently. A watcher has no queue: it walks the
// ring at its own pace, and one that falls off its end starts again. It must never hold back the state machine.
package watch

import (
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
)

// Bounds of the ring: deltas, objects in them, and the time that they span. Without the last, a cluster with nothing to do
// would keep an hour of renewed leases.
const (
	ringDeltas  = 8192
	ringObjects = 200_000
	ringSpan    = 2 * time.Minute
)

// Hub keeps the ring. Publish, Reset and Confirm come from the node's side; any number of watchers follow.
type Hub struct {
	mu       sync.Mutex // guards all below
	snap     *state.Snapshot
	ring     []*event // consecutive revisions, the last one is snap's
	objects  int
	bookmark bookmark
	changed  chan struct{}
	stopped  bool
	watches  map[*watcher]struct{}
}

// event is one delta.
type event struct {
	delta *storev1.Delta

	mu      sync.Mutex // guards encoded
	encoded map[kindSet]*grpc.PreparedMsg
}

type bookmark struct {
	number  uint64 // counts confirmations
	version state.Version
	time    time.Time
}

// NewHub makes an empty one.
func NewHub() *Hub {
	return &Hub{snap: state.Empty(), changed: make(chan struct{}), watches: map[*watcher]struct{}{}}
}

// Publish adds what was applied.
func (h *Hub) Publish(deltas []*storev1.Delta, snap *state.Snapshot) {
	h.mu.Lock()
	for _, d := range deltas {
		h.ring = append(h.ring, &event{delta: d, encoded: map[kindSet]*grpc.PreparedMsg{}})
		h.objects += weight(d)
	}
	for len(h.ring) > ringDeltas || (len(h.ring) > 1 && (h.objects > ringObjects || h.span() > ringSpan)) {
		h.objects -= weight(h.ring[0].delta)
		h.ring[0] = nil
		h.ring = h.ring[1:]
	}
	h.snap = snap
	h.wake()
}

// span is the cluster time from the first delta of the ring to the last.
func (h *Hub) span() time.Duration {
	first, last := h.ring[0].delta, h.ring[len(h.ring)-1].delta
	return last.GetClusterTime().AsTime().Sub(first.GetClusterTime().AsTime())
}

func weight(d *storev1.Delta) int { return len(d.GetPuts()) + len(d.GetDeletes()) }

// Reset replaces the state. Nobody can follow across it by deltas.
func (h *Hub) Reset(snap *state.Snapshot) {
	h.mu.Lock()
	h.snap, h.ring, h.objects = snap, nil, 0
	h.wake()
}

// Confirm says that the quorum holds no later revision than the version, at cluster time t.
func (h *Hub) Confirm(v state.Version, t time.Time) {
	h.mu.Lock()
	h.bookmark = bookmark{number: h.bookmark.number + 1, version: v, time: t}
	h.wake()
}

// Stop ends all watches.
func (h *Hub) Stop() {
	h.mu.Lock()
	h.stopped = true
	h.wake()
}

// Watches is how many watches are served.
func (h *Hub) Watches() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return uint64(len(h.watches))
}

// SendAway ends the watches that are served now: their clients go on elsewhere from the version that they hold. A client
// that comes back all the same is served.
func (h *Hub) SendAway() {
	h.mu.Lock()
	for w := range h.watches {
		w.leave = true
	}
	h.wake()
}

func (h *Hub) enter(w *watcher) (leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watches[w] = struct{}{}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watches, w)
	}
}

// wake needs the lock, and gives it back.
func (h *Hub) wake() {
	old := h.changed
	h.changed = make(chan struct{})
	h.mu.Unlock()
	close(old)
}

// look is what a watcher that holds version v may be sent next.
type look struct {
	snap     *state.Snapshot
	events   []*event
	lost     bool // v is no version from which the ring leads on
	bookmark bookmark
	changed  <-chan struct{}
	stopped  bool
	leave    bool // the watcher should go elsewhere
}

// batch bounds how many events a watcher takes at a time.
const batch = 256

func (h *Hub) look(w *watcher) look {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := w.at
	l := look{snap: h.snap, bookmark: h.bookmark, changed: h.changed, stopped: h.stopped, leave: w.leave}
	head := h.snap.Version()
	switch {
	case !v.SameEpoch(head):
		l.lost = true
	case v.Revision >= head.Revision: // a member that lags has nothing to say yet
	case head.Revision-v.Revision > uint64(len(h.ring)):
		l.lost = true
	default:
		next := h.ring[len(h.ring)-int(head.Revision-v.Revision):]
		l.events = append([]*event(nil), next[:min(batch, len(next))]...)
	}
	return l
}

// prepared is the event for watchers of these kinds, encoded by the first of them.
func (e *event) prepared(kinds kindSet, stream grpc.ServerStream) (*grpc.PreparedMsg, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := e.encoded[kinds]; m != nil {
		return m, nil
	}
	m := &grpc.PreparedMsg{}
	if err := m.Encode(stream, &storev1.WatchResponse{Event: &storev1.WatchResponse_Delta{Delta: kinds.filter(e.delta)}}); err != nil {
		return nil, err
	}
	e.encoded[kinds] = m
	return m, nil
}

func (b bookmark) response(v state.Version) *storev1.WatchResponse {
	return &storev1.WatchResponse{Event: &storev1.WatchResponse_Bookmark{Bookmark: &storev1.Bookmark{
		Version: v.Proto(), ClusterTime: timestamppb.New(b.time),
	}}}
}
