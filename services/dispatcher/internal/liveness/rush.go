package liveness

import "time"

const (
	// rushing is how many machines a second make a rush: who is not back by then may be waiting for a turn.
	rushing = 20
	// longestRush bounds how long a machine may wait for its turn without being judged.
	longestRush = 30 * time.Second
)

// rush tells whether many machines come one after another, as they do when their dispatcher was started anew.
type rush struct {
	since   time.Time // this second's begin
	now     int       // machines in it
	crowded time.Time // when it was crowded last
}

func (r *rush) note(at time.Time) {
	if at.Sub(r.since) >= time.Second {
		r.since, r.now = at, 0
	}
	if r.now++; r.now >= rushing {
		r.crowded = at
	}
}

func (r *rush) on(now time.Time) bool { return now.Sub(r.crowded) < time.Second }
