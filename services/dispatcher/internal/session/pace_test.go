package session

import (
	"testing"
	"time"

	"google.golang.org/grpc"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/liveness"
)

// The more machines there are, the less often each beats; what is left of the time after which it counts as silent, when its
// period is a tenth longer by chance, bears two losses of a packet, which TCP sends again after 200 and 400 ms, and the way.
func TestPeriodGrowsWithTheMachines(t *testing.T) {
	o := Options{HeartbeatPeriod: 500 * time.Millisecond, Times: liveness.Times{Suspect: 2 * time.Second}}
	for machines, want := range map[int]time.Duration{
		0: 500 * time.Millisecond, 1: 500 * time.Millisecond, 2000: 500 * time.Millisecond, 3000: 750 * time.Millisecond,
		4000: time.Second, 5000: 1125 * time.Millisecond, 10000: 1125 * time.Millisecond,
	} {
		if got := period(machines, o); got != want {
			t.Errorf("%d machines: %s, want %s", machines, got, want)
		}
		if left := o.Times.Suspect - period(machines, o)*11/10; left < 750*time.Millisecond {
			t.Errorf("%d machines: %s are left", machines, left)
		}
	}
	o.Times.Suspect = 800 * time.Millisecond // less than two periods: what is configured stands
	if got := period(10000, o); got != o.HeartbeatPeriod {
		t.Errorf("with little time: %s", got)
	}
}

// told keeps what is sent to a machine.
type told struct {
	grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]
	said []*dispatcherv1.SessionResponse
}

func (s *told) Send(m *dispatcherv1.SessionResponse) error { s.said = append(s.said, m); return nil }

// A machine hears of another period with the answer to a heartbeat, once, and not of a small change.
func TestMachineHearsOfAnotherPeriod(t *testing.T) {
	b, s := newOutbox(), &told{}
	b.told = 500 * time.Millisecond
	for i, p := range []int{500, 550, 750, 750, 500} {
		b.put(func() { b.heartbeat = uint64(i + 1) })
		if err := b.flush(s, time.Duration(p)*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	var heard []int64
	for _, m := range s.said {
		heard = append(heard, m.GetHeartbeatAck().GetHeartbeatPeriod().AsDuration().Milliseconds())
	}
	if want := []int64{0, 0, 750, 0, 500}; len(heard) != len(want) || heard[2] != 750 || heard[4] != 500 || heard[1]+heard[3] != 0 {
		t.Errorf("periods told in ms: %d, want %d", heard, want)
	}
}
