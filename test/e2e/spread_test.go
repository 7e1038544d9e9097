package e2e

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// Whatever the number of machines, no two of them differ by more than one task.
func TestSpread(t *testing.T) {
	for _, hosts := range []int{1, 2, 5, 10} {
		t.Run(fmt.Sprintf("%d hosts", hosts), func(t *testing.T) {
			c := bring(t, 1, hosts-1)
			const replicas = 13
			c.shoal("service", "create", "--name", "micro", "--replicas", fmt.Sprint(replicas), c.image("1.0.0"))
			c.converged("micro", replicas, 60*time.Second)
			by := c.spread("micro")
			counts := slices.Sorted(maps.Values(by))
			if len(by) != hosts || counts[len(counts)-1]-counts[0] > 1 {
				t.Errorf("13 tasks on %d hosts: %v", hosts, by)
			}
		})
	}
}
