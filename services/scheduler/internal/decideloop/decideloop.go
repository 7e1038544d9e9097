// Package decideloop is the shell around package decide: it decides when something has changed or a deadline has come, and
// commits what was decided, fenced by the lease.
//
// It owns the rhythm: one decision at a time, each from a snapshot that holds our own last commit; none without the lease;
// never a busy loop. It must never decide anything itself. Run has one caller; nothing else is shared.
package decideloop

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide"
)

const (
	// firstPause and lastPause bound the wait after a refusal or a failure. A conflict is normal and is decided again at
	// once from the newer snapshot; conflicts in a row mean load, and wait longer each time.
	firstPause = 20 * time.Millisecond
	lastPause  = 2 * time.Second
	// catchUp bounds the wait until the replica has what we or others have committed.
	catchUp = 5 * time.Second
)

// View is the replica.
type View interface {
	Snapshot() *state.Snapshot
	Changed() <-chan struct{}
	WaitFor(ctx context.Context, v state.Version) error
}

// Seat is the lease.
type Seat interface {
	Held() (number uint64, ok bool)
	Changed() <-chan struct{}
	Fence() *storev1.Precondition
}

// Loop decides and commits.
type Loop struct {
	env     run.Env
	view    View
	seat    Seat
	commit  *commit.Committer
	metrics metrics
	decider *decide.Decider
	pulse   *run.Pulse

	// pending is a transaction whose outcome is unknown. It is sent again, with its id, before anything else is decided:
	// it may yet be applied, and two plans from one snapshot would fill a slot twice.
	pending *storev1.Transaction
	from    state.Version // that the pending transaction was decided from
	pause   time.Duration
}

// New makes a loop.
func New(env run.Env, view View, seat Seat, client commit.Client) *Loop {
	return &Loop{env: env, view: view, seat: seat, commit: commit.New(client, env.Rand), metrics: newMetrics(env.Metrics), decider: decide.NewDecider(decide.Batch), pulse: run.NewPulse()}
}

// inputs are the kinds that a decision reads. Leases change all the time and are none of them.
func inputs() []typesv1.Kind {
	return []typesv1.Kind{typesv1.Kind_KIND_CLUSTER, typesv1.Kind_KIND_NODE, typesv1.Kind_KIND_SERVICE,
		typesv1.Kind_KIND_TASK, typesv1.Kind_KIND_NETWORK, typesv1.Kind_KIND_MEMBER, typesv1.Kind_KIND_LOAD,
		typesv1.Kind_KIND_VOLUME}
}

// Kinds are what the replica must follow for the loop: what decisions read, the leases, and what the process itself needs.
func Kinds() []typesv1.Kind {
	return append(inputs(), typesv1.Kind_KIND_LEASE, typesv1.Kind_KIND_DENIAL)
}

// seen is what the last decision was made from.
type seen struct {
	number  uint64 // of the lease
	epoch   *typesv1.Epoch
	changed uint64 // revision of the last change of what decisions read
	wake    time.Time
}

// Run decides until ctx ends.
func (l *Loop) Run(ctx context.Context) error {
	var last seen
	for ctx.Err() == nil {
		l.answer()
		// Take the channels before what they announce, so that no change falls between.
		viewChanged, seatChanged := l.view.Changed(), l.seat.Changed()
		number, held := l.seat.Held()
		s := l.view.Snapshot()
		if !held {
			last, l.pending = seen{}, nil // the fence of a pending transaction is dead, and with it the transaction
		} else if l.turn(ctx, s, number, &last) {
			continue
		}
		if !l.sleep(ctx, s, viewChanged, seatChanged, held, last.wake) {
			continue
		}
		if s := l.view.Snapshot(); ctx.Err() == nil {
			l.decide(ctx, s, later(s.ClusterTime(), last.wake), number, &last)
		}
	}
	return nil
}

// sleep waits for a change, the end of ctx or the wake-up time, and tells whether that has come. Cluster time moves with
// the clock: when a timer that was set at cluster time c has run for d, it is c+d at least.
func (l *Loop) sleep(ctx context.Context, s *state.Snapshot, view, seat <-chan struct{}, held bool, wake time.Time) bool {
	var deadline <-chan time.Time
	if held && !wake.IsZero() {
		timer := time.NewTimer(max(wake.Sub(s.ClusterTime()), time.Millisecond))
		defer timer.Stop()
		deadline = timer.C
	}
	for {
		select {
		case <-deadline:
			return true
		case <-l.pulse.C(): // no reason to decide: the timer must go on as it was set
			continue
		case <-ctx.Done():
		case <-view:
		case <-seat:
		}
		return false
	}
}

// answer tells who asks that the loop comes round, as it also does when one commit after another stays without an answer.
func (l *Loop) answer() {
	select {
	case <-l.pulse.C():
	default:
	}
}

// Alive waits until the loop comes round, which takes some seconds while a commit has no answer.
func (l *Loop) Alive(ctx context.Context) error { return l.pulse.Ask(ctx) }

// turn decides if anything has changed since the last decision. Again tells that the next turn should follow at once.
func (l *Loop) turn(ctx context.Context, s *state.Snapshot, number uint64, last *seen) (again bool) {
	if s.Version().IsZero() {
		return false
	}
	unchanged := last.number == number && proto.Equal(last.epoch, s.Version().Epoch()) && last.changed == s.ChangedAt(inputs()...)
	if unchanged && l.pending == nil {
		return false
	}
	return l.decide(ctx, s, s.ClusterTime(), number, last)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// decide makes one plan from the snapshot and commits it.
func (l *Loop) decide(ctx context.Context, s *state.Snapshot, now time.Time, number uint64, last *seen) (again bool) {
	if last.number != number || !l.from.SameEpoch(s.Version()) {
		l.pending = nil // decided with another fence, or in a history that was replaced
	}
	if l.pending == nil {
		begun := time.Now()
		plan := l.decider.Decide(s, now, func() string { return identity.NewID(l.env.Rand) })
		l.metrics.decided(s, time.Since(begun))
		*last = seen{number: number, epoch: s.Version().Epoch(), changed: s.ChangedAt(inputs()...), wake: plan.Wake}
		if plan.Empty() {
			l.pause = 0
			return false
		}
		fence := l.seat.Fence()
		if fence == nil {
			return false // lost meanwhile; the seat's change wakes us
		}
		l.from = s.Version()
		l.pending = &storev1.Transaction{
			RequestId:     identity.NewID(l.env.Rand),
			Preconditions: append([]*storev1.Precondition{fence}, plan.Preconditions...),
			Puts:          plan.Puts,
			Deletes:       plan.Deletes,
		}
	}
	l.send(ctx, last)
	return true
}

// send commits the pending transaction and waits until the replica has its outcome, so that the next decision knows it.
func (l *Loop) send(ctx context.Context, last *seen) {
	tx := l.pending
	begun := time.Now()
	version, err := l.commit.Do(ctx, tx)
	refusal := commit.RefusalOf(err)
	switch {
	case err == nil:
		l.metrics.committed("applied", time.Since(begun))
		l.env.Log.Info("decision committed", "puts", len(tx.GetPuts()), "deletes", len(tx.GetDeletes()), "revision", version.GetRevision())
		l.pending, l.pause = nil, 0
		l.follow(ctx, state.VersionOf(version))
	case refusal.GetRefusal() == storev1.RefusalReason_REFUSAL_REASON_FENCED:
		// Another decides now. The seat notices by itself and steps down; until then nothing is tried with this number.
		l.metrics.committed("fenced", time.Since(begun))
		l.env.Log.Warn("decision refused by the fence", "reason", refusal.GetMessage())
		l.pending = nil
		l.backOff(ctx)
	case refusal != nil:
		l.metrics.committed("conflict", time.Since(begun))
		l.refused(refusal)
		l.pending = nil
		*last = seen{} // the same snapshot may be all there is: the refusal is a change too
		l.follow(ctx, state.VersionOf(refusal.GetVersion()))
		l.backOff(ctx)
	default:
		l.metrics.committed("unknown", time.Since(begun))
		if ctx.Err() == nil {
			l.env.Log.Warn("commit without an answer, sending it again", "error", err)
		}
		l.backOff(ctx)
	}
}

// refused logs a refusal. What the store calls wrong or forbidden does not mend itself: a person must look.
func (l *Loop) refused(out *storev1.Outcome) {
	switch out.GetRefusal() {
	case storev1.RefusalReason_REFUSAL_REASON_DENIED, storev1.RefusalReason_REFUSAL_REASON_INVALID:
		l.env.Log.Error("decision refused as wrong", "refusal", out.GetRefusal().String(), "reason", out.GetMessage())
	default:
		l.env.Log.Info("decision refused, deciding again", "refusal", out.GetRefusal().String(), "reason", out.GetMessage())
	}
}

// follow waits until the replica has reached a version. If that takes too long the fence and the preconditions still hold
// what they promise; the next decision is only likely to conflict.
func (l *Loop) follow(ctx context.Context, v state.Version) {
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	if err := l.view.WaitFor(ctx, v); err != nil && ctx.Err() == nil {
		l.env.Log.Warn("replica does not reach the commit", "revision", v.Revision, "error", err)
	}
}

// backOff waits a little longer each time in a row.
func (l *Loop) backOff(ctx context.Context) {
	l.pause = min(max(2*l.pause, firstPause), lastPause)
	_ = run.Sleep(ctx, l.env.Rand.Jitter(l.pause, 0.2)) // the caller sees the end of ctx itself
}
