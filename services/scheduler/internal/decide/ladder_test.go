package decide_test

import (
	"fmt"
	"testing"
)

// TestNodesComeAndGo: nodes that come or go between others change nothing about who is preferred: with all that a decider
// remembers of the order of nodes it decides as one that starts from nothing (sim.plan).
func TestNodesComeAndGo(t *testing.T) {
	m := newSim(t)
	for i := range 8 {
		m.command(nil, []string{"node", fmt.Sprintf("n%d0", i)})
	}
	m.command(nil, []string{"service", "web", "replicas=5"})
	m.converge(m.now)
	for i := range 8 {
		m.command(nil, []string{"node", fmt.Sprintf("n%d%d", i, 9-i)})
		m.command(nil, []string{"node", fmt.Sprintf("n%d0", (i*3)%8), "remove"})
		m.command(nil, []string{"scale", fmt.Sprintf("web=%d", 6+i)})
		m.converge(m.now)
	}
}
