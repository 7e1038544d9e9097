package liveness

import (
	"testing"
	"time"
)

func defaults() Times {
	return Times{Period: 500 * time.Millisecond, Suspect: 2 * time.Second, Down: 4 * time.Second, Lease: 2 * time.Second}
}

// The more machines there are, the less often each beats, and the longer it may be silent. What is left of this when its period is
// a tenth longer by chance bears two losses of a packet, which TCP sends again after 200 and 400 ms, and the way there and back.
func TestPeriodGrowsWithTheMachines(t *testing.T) {
	const ms = time.Millisecond
	for machines, want := range map[int]Pace{
		0: {500 * ms, 2000 * ms}, 1: {500 * ms, 2000 * ms}, 1250: {500 * ms, 2000 * ms}, 2500: {1000 * ms, 2000 * ms},
		3750: {1500 * ms, 2500 * ms}, 5000: {2000 * ms, 3000 * ms}, 10000: {2000 * ms, 3000 * ms},
	} {
		got := defaults().Pace(machines)
		if got != want {
			t.Errorf("%d machines: %v, want %v", machines, got, want)
		}
		if left := got.Patience - got.Period*11/10; left < 750*ms {
			t.Errorf("%d machines: %s are left", machines, left)
		}
	}
	// What is configured close together stays in its order.
	tight := Times{Period: 500 * ms, Suspect: 2 * time.Second, Down: 2100 * ms}
	if got := tight.Pace(10000); got.Patience >= tight.Down || got.Period >= got.Patience {
		t.Errorf("with little time between: %v", got)
	}
}

// Machines of a large dispatcher are told a longer patience; when it dies, and as its machines leave it, that is what counts.
func TestMachinesOfALargeDispatcherAreGivenTheirPatience(t *testing.T) {
	now := time.Unix(1_900_000_000, 0)
	p := newPeers("d1", defaults())
	p.seen["d2"] = &peer{renewed: now, bound: 5000, most: 5000}
	p.seen["d3"] = &peer{renewed: now, bound: 100, most: 100}
	if got := p.patience("d2"); got != 3*time.Second {
		t.Errorf("5,000 machines: %s", got)
	}
	p.seen["d2"].bound = 3 // the others have left it
	if got := p.patience("d2"); got != 3*time.Second {
		t.Errorf("the last of 5,000 machines: %s", got)
	}
	if got := p.patience("d3"); got != 2*time.Second {
		t.Errorf("100 machines: %s", got)
	}
}
