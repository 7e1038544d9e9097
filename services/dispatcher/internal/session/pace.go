package session

import (
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/liveness"
)

// pace is that of as many machines as are in session now, for one of them. One of the version before would end a session whose period
// outgrew the patience that it keeps.
func (s *Server) pace(l *line) liveness.Pace {
	if !l.hears {
		return s.opts.Times.Lasting(s.lines.count())
	}
	return s.opts.Times.Pace(s.lines.count())
}

// another says that a pace is so far from the one that a machine was told that it should hear of it.
func another(told, now liveness.Pace) bool {
	return told != now && (now.Period-told.Period).Abs() >= told.Period/5
}

// ack answers a heartbeat. Bear hears of another patience before the machine does; since is the time on the server's clock of turns.
func (l *line) ack(seq uint64, pace liveness.Pace, since time.Duration, bear func(patience time.Duration)) *dispatcherv1.HeartbeatAck {
	ack := &dispatcherv1.HeartbeatAck{Seq: seq}
	if another(l.told, pace) {
		l.told = pace
		bear(pace.Patience)
		ack.HeartbeatPeriod, ack.HeartbeatTimeout = durationpb.New(pace.Period), durationpb.New(pace.Patience)
	}
	ack.NextHeartbeat = durationpb.New(turn(since, l.told.Period, l.phase))
	return ack
}

// turn is how long it is until a session's next turn. Turns are answerEach apart: machines that beat at any time each wake an idle
// processor, and those of one turn share that, and the answers to the turn before. A period later is the same turn again.
func turn(since, period time.Duration, phase float64) time.Duration {
	own := time.Duration(phase * float64(period)).Truncate(answerEach)
	return period - ((since-own)%period+period)%period
}

// phase is where in a period the turn of the nth session is: as evenly spread as can be, whatever n goes up to.
func phase(n uint64) float64 {
	_, p := math.Modf(float64(n) * (math.Phi - 1))
	return p
}
