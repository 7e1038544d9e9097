package lease

import (
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// standby counts a holder's silence. It is pure: time is an argument.
type standby struct {
	gap       time.Duration // confirmations further apart than this start the count again
	confirmed time.Time     // when the last one came; zero before the first
	since     time.Time     // since when the holder is silent, as far as we can know
	seen      state.Version // of the lease as the replica showed it last
	attempt   state.Version // of the lease at our last attempt
	tried     uint64        // number of our last attempt, whose outcome may be unknown
	sat       bool          // whether this process has held the lease in this life
}

// newStandby: confirmations come at most 500 ms apart, so a second without one is a gap, however short the ttl.
func newStandby(ttl time.Duration) standby { return standby{gap: max(ttl/2, time.Second)} }

// leaseVersion is the point at which the lease was changed last. The zero revision stands for no lease.
func leaseVersion(s *state.Snapshot, lease *typesv1.Lease) state.Version {
	v := s.Version()
	v.Revision = lease.GetMeta().GetRevision()
	return v
}

// confirm notes that the quorum has confirmed what the replica shows.
func (b *standby) confirm(now time.Time) {
	if b.confirmed.IsZero() || now.Sub(b.confirmed) > b.gap {
		b.since = now // whatever the holder did in the gap, we could not see it
	}
	b.confirmed = now
}

// see notes the lease's version: another one is a sign of life.
func (b *standby) see(v state.Version, now time.Time) {
	if v != b.seen {
		b.seen, b.since = v, now
	}
}

// silent reports whether the holder has given no sign of life for the ttl while we could have seen one.
func (b *standby) silent(now time.Time, ttl time.Duration) bool {
	return b.current(now) && now.Sub(b.since) >= ttl
}

// silentAt is when it will have been silent for the ttl, unless it gives a sign of life before.
func (b *standby) silentAt(ttl time.Duration) time.Time { return b.since.Add(ttl) }

// current reports whether what the replica shows was confirmed just now.
func (b *standby) current(now time.Time) bool {
	return !b.confirmed.IsZero() && now.Sub(b.confirmed) <= b.gap
}

// mayTry allows one attempt for each version of the lease, and further ones at ticks: who was refused waits to see why.
func (b *standby) mayTry(now time.Time, tick bool) bool {
	if !b.current(now) || (b.attempt == b.seen && b.tried != 0 && !tick) {
		return false
	}
	b.attempt = b.seen
	return true
}

// adopts reports whether the lease is what our last attempt would have made.
func (b *standby) adopts(lease *typesv1.Lease, self string) bool {
	return b.tried != 0 && lease.GetHolder() == self && lease.GetNumber() == b.tried
}

// restart begins anew after a step-down.
func (b *standby) restart(now time.Time) { b.since, b.tried = now, 0 }
