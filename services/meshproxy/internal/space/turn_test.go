package space

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestFirstConnectionsAreSpread: over thousands of containers that dial once, tasks get equal shares (chi-square, 6 degrees of
// freedom: a fair choice is above 22.5 once in a thousand times). The containers are always the same, and so is the outcome.
func TestFirstConnectionsAreSpread(t *testing.T) {
	const containers, tasks = 7000, 7
	var backends []netip.Addr
	for i := range tasks {
		backends = append(backends, netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + i)}))
	}
	first := map[netip.Addr]int{}
	for i := range containers {
		got := order(fmt.Sprintf("%08x.0", i*2654435761), backends)
		if len(got) != tasks {
			t.Fatalf("%d of %d tasks have a place", len(got), tasks)
		}
		first[got[0]]++
	}
	var sum float64
	const want = containers / tasks
	for _, b := range backends {
		d := float64(first[b] - want)
		sum += d * d / want
	}
	if sum > 22.5 {
		t.Errorf("chi-square is %.1f: first connections are %v, want about %d each", sum, first, want)
	}
}
