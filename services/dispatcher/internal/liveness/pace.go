package liveness

import "time"

// fullPace is how many machines of one dispatcher beat at the configured period. A heartbeat costs the same however many there
// are, and all of them together shall leave the processor to what machines wait for; so of more machines each beats less often.
const fullPace = 1250

// grain is that of longer periods, so that few differ.
const grain = 20 * time.Millisecond

// Pace is how a machine's life is told.
type Pace struct {
	// Period is how often it is asked to beat.
	Period time.Duration
	// Patience is the silence after which it is SUSPECT here, and after which it goes elsewhere itself.
	Patience time.Duration
}

// Pace is that of as many machines as one dispatcher has. The period grows with them, and when it is longer than half of what is
// configured as the silence that makes one suspect, this silence grows with it: what is left after a heartbeat that is a tenth
// late by chance bears a packet that is lost twice, which TCP sends again after 200 and 400 ms. The silence of one that is DOWN
// stays as it is, and the longest patience is in the middle between.
func (t Times) Pace(machines int) Pace {
	longest := max(t.Period, min(t.Down/2, t.Suspect))
	period := min(max(t.Period, t.Period*time.Duration(machines)/fullPace), longest)
	period = max(t.Period, period.Truncate(grain))
	return Pace{Period: period, Patience: max(t.Suspect, min(period, t.Down/2)+t.Suspect/2)}
}

// Lasting is the Pace of a machine that goes on with the patience of its welcome: its period grows as far as that one bears, which is
// the same however many machines there are.
func (t Times) Lasting(machines int) Pace {
	pace, first := t.Pace(machines), t.Pace(0)
	return Pace{Period: min(pace.Period, max(first.Period, t.Suspect/2)), Patience: first.Patience}
}
