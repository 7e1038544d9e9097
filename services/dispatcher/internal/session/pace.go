package session

import "time"

// fullPace is how many machines beat at the configured period. A heartbeat costs the same however many there are, and all of
// them together shall leave the processor to what machines wait for; so of more machines each beats less often.
const fullPace = 2000

// period is that of heartbeats with as many machines as are in session now.
func (s *Server) period() time.Duration { return period(s.lines.count(), s.opts) }

// period grows with the number of machines, up to nine sixteenths of the silence that makes one suspect: what is left bears
// a heartbeat whose packet is lost twice, and a machine still notices before the end that it had no turn.
func period(machines int, o Options) time.Duration {
	longest := max(o.HeartbeatPeriod, o.Times.Suspect*9/16)
	return min(max(o.HeartbeatPeriod, o.HeartbeatPeriod*time.Duration(machines)/fullPace), longest)
}

// another says that a period is so far from the one that a machine was told that it should hear of it.
func another(told, now time.Duration) bool {
	return told != now && (now-told).Abs() >= told/5
}
