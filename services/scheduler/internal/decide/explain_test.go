package decide_test

import (
	"fmt"
	"strings"

	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/explain"
)

// explain tells why a service's tasks are where they are.
func (m *sim) explain(out *strings.Builder, rest []string, opts map[string]string) {
	q := explain.Question{Service: m.s.Service(rest[0]), Task: opts["task"], Nodes: opts["nodes"] == "true"}
	image := checksum(m.s)
	got, err := explain.Of(m.s, q)
	if checksum(m.s) != image {
		m.fault("an explanation changed the state that it was asked of")
	}
	if err != nil {
		fmt.Fprintln(out, err)
		return
	}
	if q.Nodes {
		fmt.Fprintln(out, "by", got.GetRanking())
		for _, n := range got.GetNodes() {
			fmt.Fprintln(out, "  "+judged(n))
		}
		return
	}
	for _, t := range got.GetTasks() {
		name := fmt.Sprintf("%s.%d", got.GetServiceName(), t.GetSlot())
		if t.GetForNode() != "" {
			name = got.GetServiceName() + "." + t.GetForNode()
		}
		fmt.Fprintf(out, "%s on %q", name, t.GetNodeName())
		if t.GetReason() != "" {
			fmt.Fprintf(out, ": %s", t.GetReason())
		}
		fmt.Fprintln(out)
		chosen(out, t.GetChoice())
	}
	fmt.Fprintln(out, "one more")
	chosen(out, got.GetNext())
}

// sayWhy wants a reason, and since when, of every task that waits for a place or is held back.
func (m *sim) sayWhy() {
	for t := range m.s.Tasks() {
		d := t.GetDecided()
		waits := d.GetNodeId() == "" || d.GetDesired() == typesv1.TaskState_TASK_STATE_READY && !d.GetAbandoned()
		if waits && d.GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && t.GetObserved().GetState() < typesv1.TaskState_TASK_STATE_RUNNING &&
			(d.GetReason() == "" || d.GetSince() == nil) {
			m.fault("%s waits and does not say why: %v", m.taskName(t), t)
		}
	}
}

func chosen(out *strings.Builder, c *schedulerv1.Choice) {
	fmt.Fprintf(out, "  %d of %d nodes would take it\n", c.GetCandidates(), c.GetLookedAt())
	for _, r := range c.GetRefusals() {
		fmt.Fprintf(out, "  not: %d %s\n", r.GetNodes(), r.GetWords())
	}
	if c.GetNearest() != "" {
		fmt.Fprintln(out, "  nearest:", c.GetNearest())
	}
	if c.GetOwn() != nil {
		fmt.Fprintln(out, "  own: ", judged(c.GetOwn()))
	}
	if c.GetBest() != nil && c.GetBest().GetNodeId() != c.GetOwn().GetNodeId() {
		fmt.Fprintln(out, "  best:", judged(c.GetBest()))
	}
}

func judged(n *schedulerv1.JudgedNode) string {
	if n.GetRefusal() != "" {
		return n.GetNodeName() + " " + n.GetRefusal()
	}
	line := fmt.Sprintf("%s rank=%d", n.GetNodeName(), n.GetRank())
	for _, s := range n.GetShares() {
		line += fmt.Sprintf(" %s=%s:%d", s.GetKey(), s.GetValue(), s.GetTasks())
	}
	line += fmt.Sprintf(" failures=%d wishes=%d tasks=%d load=%d", n.GetFailures(), n.GetUnmetWishes(), n.GetServiceTasks(), n.GetLoad())
	if len(n.GetResources()) > 0 {
		line += " " + strings.Join(n.GetResources(), ", ")
	}
	return line
}
