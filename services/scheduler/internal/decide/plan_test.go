package decide_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/shoalproject/shoal/internal/state"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide"
	"github.com/shoalproject/shoal/services/scheduler/internal/forecast"
)

// foresee tells what a command would lead to, and holds the forecast to what it does lead to: on a copy, the command is
// carried out, and scheduler and agents work until nothing changes. `node ID off` is what only a forecast knows.
func (m *sim) foresee(out *strings.Builder, words []string) {
	before := m.s
	image := checksum(before)
	actual := &sim{s: m.s, now: m.s.ClusterTime(), ids: m.ids, decider: decide.NewDecider(decide.Batch), fault: m.fault}
	var c forecast.Change
	if words[0] == "node" && words[2] == "off" {
		c.PowerOff = []string{words[1]}
		words = []string{"node", words[1], "down", "stamp=true"}
	}
	actual.command(&strings.Builder{}, words)
	if len(c.PowerOff) == 0 {
		keys, _ := actual.s.ChangedSince(before.Version())
		for _, key := range keys {
			if o := actual.s.Get(key); o != nil {
				c.Puts = append(c.Puts, o)
			} else {
				c.Removals = append(c.Removals, key)
			}
		}
	}
	got := forecast.Of(before, c, func() bool { return false })
	if m.s != before || checksum(before) != image {
		m.fault("a forecast changed the state that it was asked of")
	}
	tell(out, got)
	actual.settleAll(time.Hour)
	if diff := cmp.Diff(perNode(actual.s), foreseen(before, got)); diff != "" {
		m.fault("it comes otherwise than foreseen (- what came, + what was foreseen):\n%s", diff)
	}
}

// TestAnyPlanComesTrue: whatever is changed in whatever cluster, what was foreseen is what comes. Jobs are left out: when they
// end is nobody's decision.
func TestAnyPlanComesTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newSim(t)
		m.command(nil, []string{"cluster", "history=2", "preemption=" + rapid.SampledFrom([]string{"on", "off"}).Draw(t, "preemption")})
		nodes := rapid.IntRange(1, 5).Draw(t, "nodes")
		for i := range nodes {
			m.command(nil, []string{"node", fmt.Sprintf("n%d", i), "memory=4G", "generic=gpu:u1+u2",
				"label.zone=" + rapid.SampledFrom([]string{"north", "south"}).Draw(t, "zone")})
		}
		service := func() string { return fmt.Sprintf("s%d", rapid.IntRange(0, 2).Draw(t, "service")) }
		for range rapid.IntRange(1, 4).Draw(t, "services") {
			name := service()
			m.command(nil, append([]string{"service", name}, drawSpec(t, name)...))
			m.settleAll(time.Hour)
		}
		name, node := service(), fmt.Sprintf("n%d", rapid.IntRange(0, nodes-1).Draw(t, "node"))
		change := rapid.SampledFrom([][]string{
			append([]string{"service", name}, drawSpec(t, name)...), {"node", node, "drain"}, {"node", node, "pause"}, {"node", node, "off"},
			{"node", node, "remove"}, append([]string{"service", name, "rollback-to=1"}, drawSpec(t, name)...), {"node", node, "taint=x::no-execute"}, {"node", node, "memory=1G"}, {"node", "n9", "memory=8G"},
		}).Draw(t, "change")
		m.foresee(&strings.Builder{}, change)
	})
}

// settleAll is converge for a limit from now on, with jobs that complete.
func (m *sim) settleAll(d time.Duration) {
	limit := m.now.Add(d)
	for range 1000 {
		did := len(m.converge(limit))
		for t := range m.s.Tasks() {
			if t.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_RUNNING && state.IsJob(m.s.Service(t.GetServiceId())) {
				m.observe(t, typesv1.TaskState_TASK_STATE_COMPLETE, nil, "")
				did++
			}
		}
		if did == 0 {
			return
		}
	}
}

// checksum is over all objects, so that one that was changed in place is found.
func checksum(s *state.Snapshot) string {
	var b strings.Builder
	for o := range s.Objects(state.Kinds()...) {
		raw, _ := proto.MarshalOptions{Deterministic: true}.Marshal(o) // an object of ours always encodes
		b.Write(raw)
	}
	return b.String()
}

func perNode(s *state.Snapshot) map[string]uint32 {
	out := map[string]uint32{}
	for t := range s.Tasks() {
		d := t.GetDecided()
		if d.GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && !d.GetAbandoned() && d.GetNodeId() != "" && !state.Terminal(t.GetObserved().GetState()) {
			out[d.GetNodeId()]++
		}
	}
	return out
}

// foreseen are the tasks of each node in the end.
func foreseen(before *state.Snapshot, p *schedulerv1.PlanResponse) map[string]uint32 {
	out := perNode(before)
	for _, n := range p.GetNodes() {
		out[n.GetNodeId()] = n.GetAfter()
	}
	maps.DeleteFunc(out, func(_ string, n uint32) bool { return n == 0 })
	return out
}

func tell(out *strings.Builder, p *schedulerv1.PlanResponse) {
	for _, s := range p.GetSteps() {
		fmt.Fprintf(out, "after %s\n", s.GetAfter().AsDuration())
		for _, a := range s.GetActions() {
			verb := strings.ToLower(strings.TrimPrefix(a.GetKind().String(), "ACTION_KIND_"))
			line := fmt.Sprintf("  %-8s%s", verb, a.GetServiceName())
			if a.GetServiceName() == "" {
				line += a.GetServiceId()
			}
			if a.GetSlot() > 0 {
				line += fmt.Sprintf(".%d", a.GetSlot())
			}
			places := slices.DeleteFunc([]string{a.GetFromNode(), a.GetToNode()}, func(s string) bool { return s == "" })
			line += " " + strings.Join(places, "->")
			if a.GetReason() != "" {
				line += fmt.Sprintf(" (%s)", a.GetReason())
			}
			if a.GetAnyway() {
				line += " anyway"
			}
			fmt.Fprintln(out, line)
		}
	}
	for _, w := range p.GetWaits() {
		fmt.Fprintf(out, "waits %s.%d: %s%s\n", w.GetServiceName(), w.GetSlot(), w.GetReason(), map[bool]string{true: " anyway"}[w.GetAnyway()])
	}
	for _, n := range p.GetNodes() {
		fmt.Fprintf(out, "node %s %d->%d\n", n.GetNodeName(), n.GetBefore(), n.GetAfter())
	}
	for _, s := range p.GetServices() {
		fmt.Fprintf(out, "service %s %d->%d least=%d floor=%d kept=%v\n", s.GetServiceName(), s.GetBefore(), s.GetAfter(), s.GetLeast(), s.GetFloor(), s.GetKept())
	}
	if !p.GetRests() {
		fmt.Fprintf(out, "no rest: %s\n", p.GetUnrest())
	}
}
