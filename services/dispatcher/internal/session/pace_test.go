package session

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/liveness"
)

// told keeps what is sent to a machine.
type told struct {
	grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]
	said []*dispatcherv1.SessionResponse
}

func (s *told) Send(m *dispatcherv1.SessionResponse) error { s.said = append(s.said, m); return nil }

// A machine hears of another pace with the answer to a heartbeat, once, and not of a small change. What it may be silent from then on
// is noted before it hears of it.
func TestMachineHearsOfAnotherPace(t *testing.T) {
	paced := func(ms int) liveness.Pace {
		return liveness.Pace{Period: time.Duration(ms) * time.Millisecond, Patience: time.Duration(ms+1000) * time.Millisecond}
	}
	b, s := newOutbox(), &told{}
	l := &line{told: paced(500)}
	for i, p := range []int{500, 550, 750, 750, 500} {
		b.put(func() { b.heartbeat = uint64(i + 1) })
		said := len(s.said)
		if err := b.flush(s, func(seq uint64) *dispatcherv1.HeartbeatAck {
			return l.ack(seq, paced(p), 0, func(patience time.Duration) {
				if len(s.said) != said || patience != paced(p).Patience {
					t.Errorf("noted %s after %d messages, told %v after %d", patience, len(s.said), paced(p), said)
				}
			})
		}); err != nil {
			t.Fatal(err)
		}
	}
	var periods, patiences []int64
	for _, m := range s.said {
		periods = append(periods, m.GetHeartbeatAck().GetHeartbeatPeriod().AsDuration().Milliseconds())
		patiences = append(patiences, m.GetHeartbeatAck().GetHeartbeatTimeout().AsDuration().Milliseconds())
	}
	if !slices.Equal(periods, []int64{0, 0, 750, 0, 500}) || !slices.Equal(patiences, []int64{0, 0, 1750, 0, 1500}) {
		t.Errorf("told in ms: periods %d, patiences %d", periods, patiences)
	}
}

// Machines take turns: each the same one in every period, as many in one as in another, and each turn is as far from the next as
// answers are apart. Whoever came when, and is late by its way, beats in its turn from then on, and no later than a period after the last time.
func TestMachinesTakeTurns(t *testing.T) {
	const machines, period = 5000, 2 * time.Second
	turns := map[time.Duration]int{}
	for n := range uint64(machines) {
		p := phase(n + 1)
		late := time.Duration(n%7) * time.Millisecond
		at := time.Duration(n) * 5 * time.Millisecond
		for range 3 {
			next := turn(at, period, p)
			if next <= 0 || next > period {
				t.Fatalf("the next heartbeat after %s", next)
			}
			turns[(at+next)%period]++
			at += next + late + answerEach
		}
	}
	if want := int(period / answerEach); len(turns) != want {
		t.Errorf("%d turns, want %d", len(turns), want)
	}
	for at, n := range turns {
		if at%answerEach != 0 || n < 3*machines/100*9/10 || n > 3*machines/100*11/10 {
			t.Errorf("%d machines at %s", n/3, at)
		}
	}
}
