package decide_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// checkDisplaced: whoever has been displaced since is of a lower priority than who displaced it, and no service misses more
// for it than it states.
func (m *sim) checkDisplaced(t fatal, before *state.Snapshot) {
	lost := map[string]bool{}
	for task := range m.s.Tasks() {
		was := before.Task(task.GetMeta().GetId())
		of, by, displaced := strings.Cut(task.GetDecided().GetReason(), "(priority ")
		if !displaced || !strings.HasPrefix(of, "displaced by ") || was.GetDecided().GetReason() == task.GetDecided().GetReason() {
			continue
		}
		class, err := strconv.Atoi(strings.TrimSuffix(by, ")"))
		svc := m.s.Service(task.GetServiceId())
		if err != nil || svc.GetSpec().GetPriority() >= int32(class) {
			t.Fatalf("%s (priority %d) was %s", m.taskName(task), svc.GetSpec().GetPriority(), task.GetDecided().GetReason())
		}
		lost[task.GetServiceId()] = true
	}
	for id := range lost {
		svc := m.s.Service(id)
		if svc.GetSpec().MaxUnavailable == nil || svc.GetSpec().GetReplicated() == nil {
			continue
		}
		running := map[uint64]bool{}
		for task := range m.s.TasksOfService(id) {
			d := task.GetDecided()
			// What is tied to a drained node by its volumes goes with the drain, whatever is missing.
			tied := strings.HasPrefix(d.GetReason(), "node ") && strings.HasSuffix(d.GetReason(), " is drained")
			if (d.GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING || tied) && task.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_RUNNING {
				running[d.GetSlot()] = true
			}
		}
		missing := int(state.Replicas(svc)) - len(running) - m.unseen(before, id)
		if missing > int(svc.GetSpec().GetMaxUnavailable()) {
			t.Fatalf("%s misses %d, and states that at most %d may be missing", id, missing, svc.GetSpec().GetMaxUnavailable())
		}
	}
}

// unseen counts the slots of a service that never had a place, if an update or a move has taken a task in this decision: these
// do not count them (see TestFloorHolds), so that they go on while there is no room.
func (m *sim) unseen(before *state.Snapshot, service string) int {
	waits, took := map[uint64]bool{}, false
	for task := range m.s.TasksOfService(service) {
		d := task.GetDecided()
		if _, seen := waits[d.GetSlot()]; !seen {
			waits[d.GetSlot()] = true
		}
		waits[d.GetSlot()] = waits[d.GetSlot()] && d.GetNodeId() == ""
		was := before.Task(task.GetMeta().GetId()).GetDecided()
		took = took || was.GetDesired() != d.GetDesired() && (strings.HasPrefix(d.GetReason(), "replaced") ||
			strings.HasPrefix(d.GetReason(), "rolled back") || strings.HasPrefix(d.GetReason(), "moved: "))
	}
	n := 0
	for _, w := range waits {
		n += ones(took && w)
	}
	return n
}

// TestDisplacementEnds: with whatever classes and sizes, nobody displaces its equal or better, stated floors hold, and it all
// comes to rest: who was displaced does not displace back.
func TestDisplacementEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newSim(t)
		m.command(nil, []string{"cluster", "preemption=on", "history=1"})
		for i := range rapid.IntRange(1, 4).Draw(t, "nodes") {
			m.command(nil, []string{"node", fmt.Sprintf("n%d", i), "memory=" + rapid.SampledFrom([]string{"2G", "4G", "7G"}).Draw(t, "size")})
		}
		displaced := 0
		for i := range rapid.IntRange(1, 8).Draw(t, "services") {
			words := []string{"service", fmt.Sprintf("s%d", i), fmt.Sprintf("replicas=%d", rapid.IntRange(0, 6).Draw(t, "replicas")),
				fmt.Sprintf("priority=%d", rapid.IntRange(-2, 2).Draw(t, "priority")),
				fmt.Sprintf("memory=%dG", rapid.IntRange(0, 3).Draw(t, "memory"))}
			if floor := rapid.IntRange(0, 2).Draw(t, "floor"); floor > 0 {
				words = append(words, fmt.Sprintf("max-unavailable=%d", floor))
			}
			m.command(nil, words)
			for range 200 {
				before := m.s
				lines, _ := m.decide()
				m.checkDisplaced(t, before)
				for _, l := range lines {
					displaced += strings.Count(l, "(displaced by")
				}
				if settled := m.settle(); len(lines) == 0 && !settled {
					break
				}
			}
			m.converge(m.now.Add(time.Hour))
		}
		if displaced > 300 { // 8 services of 6 tasks, each of which is displaced at most by the classes above it
			t.Fatalf("%d tasks were displaced", displaced)
		}
	})
}
