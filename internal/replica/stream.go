package replica

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
)

// stream is one Watch from its opening to its end.
type stream struct {
	r *Replica
	// building is the snapshot that is coming in chunks; nil between snapshots. What is published stays as it is until
	// the last chunk.
	building *state.Txn
	version  state.Version // of the snapshot that is being built
}

// follow opens one stream and takes what it sends. Progress tells whether it sent anything that was of use.
func (r *Replica) follow(ctx context.Context) (progress bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(patience, func() {
		cancel(errs.New(errs.Unavailable, "the member was silent for %s", patience))
	})
	defer watchdog.Stop()

	req := &storev1.WatchRequest{Kinds: r.kinds}
	if v := r.Snapshot().Version(); !v.IsZero() {
		req.From = v.Proto()
	}
	in, err := r.watch.Watch(ctx, req)
	if err != nil {
		return false, whyEnded(ctx, err)
	}
	s := stream{r: r}
	for {
		msg, err := in.Recv()
		if err != nil {
			return progress, whyEnded(ctx, err)
		}
		watchdog.Reset(patience)
		if err := s.take(msg); err != nil {
			return progress, err
		}
		progress = true
	}
}

// whyEnded prefers our own reason for cancelling over the status that the cancellation led to.
func whyEnded(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (s *stream) take(msg *storev1.WatchResponse) error {
	switch e := msg.GetEvent().(type) {
	case *storev1.WatchResponse_Resync:
		s.r.metrics.resyncs.Inc()
		s.r.env.Log.Info("resync", "reason", e.Resync.GetReason())
		s.building = nil
		return nil
	case *storev1.WatchResponse_Chunk:
		return s.takeChunk(e.Chunk)
	case *storev1.WatchResponse_Delta:
		return s.takeDelta(e.Delta)
	case *storev1.WatchResponse_Bookmark:
		return s.takeBookmark(e.Bookmark)
	}
	return nil // an event of a newer member
}

func (s *stream) takeChunk(c *storev1.SnapshotChunk) error {
	held, v := s.r.Snapshot(), state.VersionOf(c.GetVersion())
	switch {
	case s.building == nil && goesBack(held.Version(), v):
		return errs.New(errs.Unavailable, "the member offers a snapshot of epoch %d revision %d, behind our epoch %d revision %d",
			v.EpochNumber, v.Revision, held.Version().EpochNumber, held.Version().Revision)
	case s.building == nil:
		s.building, s.version = state.Empty().Begin(), v
	case v != s.version:
		return errs.New(errs.Internal, "a snapshot's chunks are of revisions %d and %d", s.version.Revision, v.Revision)
	}
	for _, o := range c.GetObjects() {
		s.building.Put(o)
	}
	if !c.GetLast() {
		return nil
	}
	next := s.building.Commit(v, later(held.ClusterTime(), c.GetClusterTime()))
	s.building = nil
	s.r.swap(next, false)
	return nil
}

// goesBack reports whether v is an earlier point than what is held. The same epoch number with another nonce is another
// history of the same rank: which one is right cannot be told from here, and the store's answer counts.
func goesBack(held, v state.Version) bool {
	if held.SameEpoch(v) {
		return v.Revision < held.Revision
	}
	return v.EpochNumber < held.EpochNumber
}

func (s *stream) takeDelta(d *storev1.Delta) error {
	held, v := s.r.Snapshot(), state.VersionOf(d.GetVersion())
	if err := s.fits(held, v); err != nil {
		return err
	}
	if v.Revision <= held.Version().Revision {
		return nil // told twice
	}
	s.r.swap(held.Apply(d), false)
	return nil
}

func (s *stream) takeBookmark(b *storev1.Bookmark) error {
	held, v := s.r.Snapshot(), state.VersionOf(b.GetVersion())
	if err := s.fits(held, v); err != nil {
		return err
	}
	if v.Revision < held.Version().Revision {
		return nil // made before the last delta; it confirms nothing about what we hold
	}
	s.r.swap(held.Begin().Commit(v, later(held.ClusterTime(), b.GetClusterTime())), true)
	return nil
}

// fits refuses an event that does not go on from what is held.
func (s *stream) fits(held *state.Snapshot, v state.Version) error {
	switch {
	case s.building != nil:
		return errs.New(errs.Internal, "an event of revision %d came amid a snapshot", v.Revision)
	case held.Version().IsZero():
		return errs.New(errs.Internal, "an event of revision %d came before any snapshot", v.Revision)
	case !held.Version().SameEpoch(v):
		return errs.New(errs.Internal, "an event of epoch %d came without a resync from epoch %d", v.EpochNumber, held.Version().EpochNumber)
	}
	return nil
}

// later is the higher of two cluster times; the zero message counts as none.
func later(held time.Time, ts *timestamppb.Timestamp) time.Time {
	if ts == nil || ts.AsTime().Before(held) {
		return held
	}
	return ts.AsTime()
}
