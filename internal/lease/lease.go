// Package lease lets one process at a time do a duty, and fences what it commits.
//
// It owns one seat: it takes the lease, renews it, notices that it is lost, and gives it back at the end. Silence is
// counted by the process's own monotonic clock and only while the quorum's confirmations keep coming, so that an election
// or a member that lags never looks like a dead holder. It must never believe that holding a lease keeps others from
// writing: only the fence does, which the store checks in each commit. A Seat is safe for concurrent use; Run has one
// caller.
package lease

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/replica"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Seat is one process's place in the queue for a duty.
type Seat struct {
	env     run.Env
	commit  *commit.Committer
	replica *replica.Replica
	name    string
	self    string // member id
	ttl     time.Duration
	metrics metrics
	yield   Yield // nil: never

	standby standby // Run's alone

	mu      sync.Mutex // guards all below
	number  uint64     // of the lease while this process sits; 0 while it stands by
	renewed time.Time  // when the last renewal that was answered was sent
	held    bool       // what Held told last
	changed chan struct{}
}

// New makes a seat for the duty of that name. The replica must follow leases. Ttl is the silence after which another may
// take the lease; the holder renews at a third of it.
func New(env run.Env, client storev1.CommitServiceClient, r *replica.Replica, name string, self identity.ID, ttl time.Duration) *Seat {
	return &Seat{
		env: env, commit: commit.New(client, env.Rand), replica: r, name: name, self: self.Member(), ttl: ttl,
		metrics: newMetrics(env.Metrics, name), standby: newStandby(ttl), changed: make(chan struct{}),
	}
}

// Yield is whether a process should leave the duty to others. Changed is closed when Wanted tells something else.
type Yield interface {
	Wanted() bool
	Changed() <-chan struct{}
}

// YieldWhile has the seat give the lease back, and not take it, while that is wanted. Call it before Run.
func (s *Seat) YieldWhile(y Yield) { s.yield = y }

func (s *Seat) yields() bool { return s.yield != nil && s.yield.Wanted() }

// yieldChanged never closes without a Yield.
func (s *Seat) yieldChanged() <-chan struct{} {
	if s.yield == nil {
		return nil
	}
	return s.yield.Changed()
}

// Held tells whether this process has the duty now, and its lease's number. A holder that could not renew for a whole ttl
// does not hold it until it has renewed again.
func (s *Seat) Held() (number uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.number, s.holds(time.Now())
}

// Changed is closed when Held tells something else than now. Take the channel before Held.
func (s *Seat) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Fence is the precondition that each commit of the duty must carry; nil while the duty is another's.
func (s *Seat) Fence() *storev1.Precondition {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.holds(time.Now()) {
		return nil
	}
	return s.fence(s.number)
}

// Run stands by, sits, and stands by again until ctx ends; then it gives the lease back, so that another need not wait.
func (s *Seat) Run(ctx context.Context) error {
	ticker := s.env.Ticker(s.ttl / 3)
	defer ticker.Stop()
	defer s.giveBack(ctx, "this process stops")
	var tick, confirmed bool
	// Kept until it is closed: one that closes while a step commits, or together with a tick, must not be lost.
	confirmations := s.replica.Confirmed()
	due := time.NewTimer(s.ttl)
	defer due.Stop()
	for {
		changes, yield := s.replica.Changed(), s.yieldChanged()
		s.step(ctx, tick, confirmed)
		tick, confirmed = false, false
		if left := time.Until(s.standby.silentAt(s.ttlOf(s.replica.Snapshot().Lease(s.name)))); left > 0 {
			due.Reset(left)
		}
		select {
		case <-due.C: // and not at the next confirmation or tick
		case <-ctx.Done():
			return nil
		case <-ticker.C():
			tick = true
		case <-confirmations:
			confirmations = s.replica.Confirmed()
			confirmed = true
		case <-changes:
		case <-yield:
		}
	}
}

func (s *Seat) step(ctx context.Context, tick, confirmed bool) {
	now := time.Now()
	snapshot := s.replica.Snapshot()
	lease := snapshot.Lease(s.name)
	if confirmed {
		s.standby.confirm(now)
	}
	s.standby.see(leaseVersion(snapshot, lease), now)
	number := s.sitting()
	switch {
	case s.yields():
		s.giveBack(ctx, "others are wanted for this duty")
	case number == 0:
		s.tryTake(ctx, lease, now, tick)
	case lease.GetNumber() != number || lease.GetHolder() != s.self:
		s.stepDown("the store shows another holder")
	case tick:
		s.renew(ctx, number, now)
	}
	s.publish()
}

// ttlOf is the lease's own: its holder may be configured otherwise.
func (s *Seat) ttlOf(lease *typesv1.Lease) time.Duration {
	if d := lease.GetTtl().AsDuration(); d > 0 {
		return d
	}
	return s.ttl
}

// tryTake takes the lease if it may: free, silent for too long, or left by an earlier life of this very process.
func (s *Seat) tryTake(ctx context.Context, lease *typesv1.Lease, now time.Time, tick bool) {
	switch {
	case s.standby.adopts(lease, s.self):
		// Our take was applied although its answer was lost, and the replica has reached it.
		s.sit(ctx, lease.GetNumber(), now)
		return
	case lease.GetHolder() == "": // nobody's, or given back
	case lease.GetHolder() == s.self && !s.standby.sat:
		// There is at most one process of a role on a machine, so the holder is this one before its restart; the new
		// number fences what it may have left under way. After a step-down it would be a clone's, and is waited for.
	case s.standby.silent(now, s.ttlOf(lease)):
	default:
		return
	}
	if s.standby.mayTry(now, tick) {
		s.take(ctx, lease)
	}
}

func (s *Seat) take(ctx context.Context, lease *typesv1.Lease) {
	number := lease.GetNumber() + 1
	s.standby.tried = number
	next := commit.Put(state.Wrap(s.lease(s.self, number)), "holder", "number", "ttl")
	next.Create = lease == nil
	sent := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.ttl/2)
	defer cancel()
	version, err := s.commit.Do(ctx, &storev1.Transaction{
		// The lease's version, not its number: a renewal that is under way must win.
		Preconditions: []*storev1.Precondition{commit.Unchanged(typesv1.Kind_KIND_LEASE, s.name, lease.GetMeta().GetRevision())},
		Puts:          []*storev1.Put{next},
	})
	if err != nil {
		s.env.Log.Info("lease not taken", "lease", s.name, "number", number, "error", err)
		return
	}
	// What the holder before has committed must be in our snapshot before we decide anything. If that does not come in
	// time, a later step adopts the lease when the replica shows it.
	if err := s.replica.WaitFor(ctx, state.VersionOf(version)); err != nil {
		s.env.Log.Warn("lease taken, waiting for the replica", "lease", s.name, "number", number, "error", err)
		return
	}
	s.seat(number, sent)
}

// sit takes up a lease that is ours already, if a renewal proves that it still is.
func (s *Seat) sit(ctx context.Context, number uint64, now time.Time) {
	if s.commitRenewal(ctx, number, s.self) == nil {
		s.seat(number, now)
		return
	}
	s.standby.tried = 0
}

func (s *Seat) renew(ctx context.Context, number uint64, now time.Time) {
	err := s.commitRenewal(ctx, number, s.self)
	switch {
	case err == nil:
		s.mu.Lock()
		s.renewed = now
		s.mu.Unlock()
	case commit.RefusalOf(err) != nil:
		// Somebody else has it: we were silent for too long. Never try again with this number.
		s.stepDown(commit.RefusalOf(err).GetMessage())
	default:
		s.env.Log.Warn("lease not renewed, trying again", "lease", s.name, "number", number, "error", err)
	}
}

func (s *Seat) commitRenewal(ctx context.Context, number uint64, holder string) error {
	ctx, cancel := context.WithTimeout(ctx, s.ttl/2)
	defer cancel()
	_, err := s.commit.Do(ctx, &storev1.Transaction{
		Preconditions: []*storev1.Precondition{s.fence(number)},
		Puts:          []*storev1.Put{commit.Put(state.Wrap(s.lease(holder, number)), "holder", "number", "ttl")},
	})
	return err
}

// giveBack is a courtesy at a graceful stop, and what yielding means. The number stays: the next holder goes on counting.
func (s *Seat) giveBack(ctx context.Context, why string) {
	number := s.sitting()
	if number == 0 {
		return
	}
	s.stepDown(why)
	s.publish()
	if err := s.commitRenewal(context.WithoutCancel(ctx), number, ""); err != nil {
		s.env.Log.Info("lease not given back; it runs out", "lease", s.name, "error", err)
	}
}

func (s *Seat) lease(holder string, number uint64) *typesv1.Lease {
	return &typesv1.Lease{Meta: &typesv1.Meta{Id: s.name}, Holder: holder, Number: number, Ttl: durationpb.New(s.ttl)}
}

func (s *Seat) fence(number uint64) *storev1.Precondition {
	return &storev1.Precondition{Condition: &storev1.Precondition_Fence{
		Fence: &storev1.Fence{Lease: s.name, Number: number, Holder: s.self},
	}}
}
