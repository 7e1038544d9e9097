package decide_test

import (
	"testing"

	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide"
)

// TestMemoryOfATask bounds the pieces of memory that a decision takes for each task: time is not to be had the same twice, but
// this is, and the collector's share of a decision grows with it. The task's id is one of them.
func TestMemoryOfATask(t *testing.T) {
	for _, c := range []struct {
		what     string
		snapshot *state.Snapshot
		tasks    float64
		most     float64 // for each task; a quarter more than today
	}{
		{"made for services of many replicas", shape{100, 10, 200, false}.snapshot(), 2000, 2},
		{"placed for services of many replicas", shape{100, 10, 200, false}.pending(), 2000, 5},
		{"made for services of one replica", shape{100, 1000, 1, true}.snapshot(), 1000, 16},
		{"placed for services of one replica", shape{100, 1000, 1, true}.pending(), 1000, 19},
	} {
		pieces := testing.AllocsPerRun(3, func() {
			if p := decide.NewDecider(1<<30).Decide(c.snapshot, start(), ids()); len(p.Puts) != int(c.tasks) {
				t.Fatalf("%d puts", len(p.Puts))
			}
		})
		t.Logf("%.1f for each task %s", pieces/c.tasks, c.what)
		if pieces > c.most*c.tasks {
			t.Errorf("%.1f pieces of memory for each task %s, at most %.0f", pieces/c.tasks, c.what, c.most)
		}
	}
}
