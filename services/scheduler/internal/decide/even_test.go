package decide_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
)

// TestUpdatesLeaveEven: a forced update, in whatever order and however many at a time, leaves a service as even as it was: no node
// with two tasks more than another.
func TestUpdatesLeaveEven(t *testing.T) {
	for nodes := 2; nodes <= 5; nodes++ {
		for replicas := 2; replicas <= 11; replicas++ {
			for parallelism := range 4 {
				for _, order := range []string{"start-first", "stop-first", "start-first prefer"} {
					m := newSim(t)
					words := []string{"service", "web", "order=" + order, fmt.Sprintf("parallelism=%d", parallelism)}
					if order == "start-first prefer" {
						words[2] = "order=start-first"
						words = append(words, "prefer=node.labels.name")
					}
					for i := range nodes {
						m.command(nil, []string{"node", fmt.Sprintf("n%d", i), fmt.Sprintf("label.name=%d", i)})
					}
					m.command(nil, append(words, fmt.Sprintf("replicas=%d", replicas)))
					m.converge(m.now)
					for range 2 {
						m.command(nil, words)
						m.converge(m.now)
						counts := slices.Collect(maps.Values(m.spread("web")))
						if slices.Max(counts)-slices.Min(counts) > 1 {
							t.Errorf("%s, %d nodes, %d replicas, %d at a time: %v", order, nodes, replicas, parallelism, m.spread("web"))
							break
						}
					}
				}
			}
		}
	}
}
