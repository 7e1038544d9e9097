// Package replica keeps an immutable snapshot of the store's objects current by its Watch.
//
// It owns one stream at a time, the snapshot made from it, and the resumption on another member when the stream breaks.
// One revision is one swap; a full resync swaps once, at its end: nobody sees half a transaction. It never goes back in
// the history, never skips a revision silently and never writes. A Replica is safe for concurrent use; Run has one caller.
package replica

import (
	"context"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	// patience is how long a stream may be silent. Bookmarks come at most 500 ms apart from a member that the quorum
	// confirms, so a silent one is cut off or lags, and another may know more.
	patience = 3 * time.Second
	// The waits between tries grow from firstWait to lastWait.
	firstWait = 50 * time.Millisecond
	lastWait  = time.Second
)

// Replica follows the store.
type Replica struct {
	env     run.Env
	watch   storev1.WatchServiceClient
	kinds   []typesv1.Kind
	metrics metrics

	mu        sync.Mutex // guards all below
	snapshot  *state.Snapshot
	changed   chan struct{} // closed and replaced when the snapshot's version changes
	confirmed chan struct{} // closed and replaced at each bookmark
	trouble   error         // why the stream is broken; nil while it is up to date
}

// New makes a replica of the kinds given, all when none is. Its snapshot is empty until Run has got the first one. The
// client should lead to another member at each call, as rpc.Dial's connections do.
func New(env run.Env, watch storev1.WatchServiceClient, kinds ...typesv1.Kind) *Replica {
	if len(kinds) == 0 {
		kinds = state.Kinds()
	}
	return &Replica{
		env: env, watch: watch, kinds: kinds, metrics: newMetrics(env.Metrics),
		snapshot: state.Empty(), changed: make(chan struct{}), confirmed: make(chan struct{}),
		trouble: errs.New(errs.Unavailable, "no state from the store yet"),
	}
}

// Snapshot is the newest state; empty, with the zero version, before the first has come.
func (r *Replica) Snapshot() *state.Snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.snapshot
}

// Changed is closed when the snapshot gets another version than the one that it has now. Take the channel before the
// snapshot, so that no change is missed between the two. A later cluster time alone is no change.
func (r *Replica) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Confirmed is closed at the next bookmark: the quorum has confirmed that the snapshot is the newest there is. A delta
// alone is no confirmation, for a member that was cut off hands over old ones when it comes back.
func (r *Replica) Confirmed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.confirmed
}

// Health is nil while the replica follows a member, else it says in words what it waits for.
func (r *Replica) Health() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trouble
}

// WaitFor blocks until the snapshot has reached the version or ctx ends. A version of a history that was replaced is
// never reached: that is an error of kind Conflict.
func (r *Replica) WaitFor(ctx context.Context, v state.Version) error {
	for {
		changed, held := r.Changed(), r.Snapshot().Version()
		switch {
		case held.Reaches(v):
			return nil
		case held.EpochNumber > v.EpochNumber:
			return errs.New(errs.Conflict, "wait for revision %d of epoch %d: the store is in epoch %d now; read again",
				v.Revision, v.EpochNumber, held.EpochNumber)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Run follows the store until ctx ends. A broken stream is opened again from the version held, on whichever member the
// client leads to.
func (r *Replica) Run(ctx context.Context) error {
	wait := firstWait
	for ctx.Err() == nil {
		wait = r.try(ctx, wait)
	}
	return nil
}

// try follows one stream to its end and waits before the next, longer each time that one was of no use.
func (r *Replica) try(ctx context.Context, wait time.Duration) (next time.Duration) {
	progress, err := r.follow(ctx)
	if ctx.Err() != nil {
		return wait
	}
	if progress {
		wait = firstWait
	}
	r.broken(err)
	_ = run.Sleep(ctx, r.env.Rand.Jitter(wait, 0.2)) // the caller sees the end of ctx itself
	return min(2*wait, lastWait)
}

// broken notes why the stream ended, and logs it once for each outage.
func (r *Replica) broken(err error) {
	r.metrics.breaks.Inc()
	r.mu.Lock()
	first := r.trouble == nil
	r.trouble = errs.New(errs.Unavailable, "follow the store: %w", err)
	r.mu.Unlock()
	if first {
		r.env.Log.Warn("watch broken, trying again", "error", err)
	}
}

// swap publishes a snapshot. Confirm tells that the quorum holds no later one.
func (r *Replica) swap(next *state.Snapshot, confirm bool) {
	r.metrics.revision.Set(float64(next.Version().Revision))
	if r.publish(next, confirm) {
		r.env.Log.Info("following the store", "epoch", next.Version().EpochNumber, "revision", next.Version().Revision)
	}
}

// publish is swap under the lock; it reports the end of an outage.
func (r *Replica) publish(next *state.Snapshot, confirm bool) (recovered bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if next.Version() != r.snapshot.Version() {
		close(r.changed)
		r.changed = make(chan struct{})
	}
	r.snapshot = next
	if confirm {
		close(r.confirmed)
		r.confirmed = make(chan struct{})
	}
	recovered = r.trouble != nil
	r.trouble = nil
	return recovered
}
