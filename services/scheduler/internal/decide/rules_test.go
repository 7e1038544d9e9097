package decide_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestAnyRuleMeetsUpdates: updates, rollbacks by hand and rules that nodes no longer meet, all in the same moment, of two services
// that share small nodes: each decision does all there is to do (sim.decide), and all comes to rest.
func TestAnyRuleMeetsUpdates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newSim(t)
		pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
		m.command(nil, []string{"cluster", "history=2", "preemption=" + pick("preemption", "on", "off")})
		nodes := rapid.IntRange(1, 4).Draw(t, "nodes")
		for i := range nodes {
			m.command(nil, []string{"node", fmt.Sprintf("n%d", i), "memory=4G", "label.zone=north", "generic=gpu:u1+u2"})
		}
		for range rapid.IntRange(2, 25).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1:
				name := pick("service", "s0", "s1")
				words := []string{"service", name, "restart-delay=0s", "image=" + pick("image", "v1", "v2"), "parallelism=" + pick("parallelism", "0", "0", "1", "2"),
					"order=" + pick("order", "stop-first", "start-first"), pick("memory", "memory=0", "memory=1G", "memory=3G"), "replicas=" + pick("replicas", "1", "3", "5")}
				words = append(words, strings.Fields(pick("rule", "", "constraint=node.labels.zone_==_north", "max-replicas=1", "max-replicas=2",
					"far="+name, "tolerate=x", "generic=gpu:1", "host-port=80", "slot-volume=data"))...)
				m.command(nil, append(words, strings.Fields(pick("update", "", "monitor=5s action=rollback", "max-unavailable=1", "rollback-to=1", "priority=3", "hold=true"))...))
			case 2:
				m.command(nil, []string{"node", fmt.Sprintf("n%d", rapid.IntRange(0, nodes-1).Draw(t, "node")), pick("change", "label.zone=south", "label.zone=north",
					"memory=1G", "memory=2G", "memory=4G", "taint=x::no-execute", "taint=", "drain", "pause", "active", "generic=gpu:u1", "generic=gpu:u1+u2")})
			case 3:
				m.settle()
			case 4:
				m.now = m.now.Add(time.Duration(rapid.IntRange(1, 6000).Draw(t, "ms")) * time.Millisecond)
			default:
				m.decide()
			}
		}
		m.converge(m.now.Add(time.Hour))
	})
}
