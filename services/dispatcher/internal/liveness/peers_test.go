package liveness

import (
	"fmt"
	"testing"
)

// The machines of a dead dispatcher are shared out evenly, also when names are alike, and everybody shares them out alike.
func TestChosenIsEven(t *testing.T) {
	live := []string{"machine-1", "machine-2", "machine-3", "machine-4"}
	const machines = 4000
	share := map[string]int{}
	for i := range machines {
		id := fmt.Sprintf("node-%05d", i)
		by := chosen(id, live)
		if again := chosen(id, []string{live[3], live[1], live[0], live[2]}); again != by {
			t.Fatalf("%s: %s and %s", id, by, again)
		}
		share[by]++
	}
	for _, d := range live {
		if got, want := share[d], machines/len(live); got < want*8/10 || got > want*12/10 {
			t.Errorf("%s speaks for %d machines, want about %d", d, got, want)
		}
	}
}
