package outlook

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"

	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"

	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/table"
)

// Explanation is an explanation as programs get it.
type Explanation struct {
	Revision uint64
	Service  string
	Ranking  string
	// Scale is how a service scales by its load, in words.
	Scale string `json:",omitempty"`
	Tasks []Task
	// LeftOut are further tasks that are not told of.
	LeftOut uint64 `json:",omitempty"`
	Next    Choice
	Nodes   []Node `json:",omitempty"`
}

// Task is one task and how the nodes compare for it.
type Task struct {
	ID, Name, Node, State, Since string
	Reason                       string `json:",omitempty"`
	Choice                       Choice

	waited string
}

// Choice is how nodes compare for one task.
type Choice struct {
	LookedAt, Candidates uint32
	Refusals             []string
	Nearest              string `json:",omitempty"`
	Best, Own            *Node  `json:",omitempty"`
}

// Node is what speaks for and against a node.
type Node struct {
	ID, Name                            string
	Rank                                uint32 // 0: a rule keeps it out
	Refusal                             string `json:",omitempty"`
	Failures, UnmetWishes, ServiceTasks uint32
	Load                                float64  // in percent
	Shares                              []string `json:",omitempty"`
	Resources                           []string `json:",omitempty"`

	shares []uint32
}

// Place is the rank, or why there is none.
func (n Node) Place() string {
	if n.Rank == 0 {
		return "-"
	}
	return fmt.Sprint(n.Rank)
}

// Why is what counts, in order; or what keeps it out.
func (n Node) Why() string {
	if n.Refusal != "" {
		return n.Refusal
	}
	parts := append([]string{}, n.Shares...)
	if n.Failures > 0 {
		parts = append(parts, count(n.Failures, "failure", "failures"))
	}
	if n.UnmetWishes > 0 {
		parts = append(parts, count(n.UnmetWishes, "unmet wish", "unmet wishes"))
	}
	parts = append(parts, count(n.ServiceTasks, "task", "tasks")+" of the service", fmt.Sprintf("load %.1f %%", n.Load))
	return strings.Join(append(parts, n.Resources...), ", ")
}

func count(n uint32, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Candidates is how many nodes would take the task, of how many.
func (t Task) Candidates() string {
	return fmt.Sprintf("%d of %d", t.Choice.Candidates, t.Choice.LookedAt)
}

// Why says why the task is where it is.
func (t Task) Why() string {
	own, best := t.Choice.Own, t.Choice.Best
	switch {
	case own == nil && t.Reason != "" && t.waited != "":
		return fmt.Sprintf("%s (for %s)", t.Reason, t.waited)
	case own == nil:
		return cmp.Or(t.Reason, "has no node yet")
	case own.Rank == 1:
		return "the best of them: " + own.Why()
	case own.Rank > 1:
		return fmt.Sprintf("number %d of them now: %s; %s is better now: %s", own.Rank, own.Why(), best.Name, best.against(own))
	case best != nil:
		return fmt.Sprintf("would not be chosen now: %s %s; %s would", own.Name, own.Refusal, best.Name)
	}
	return fmt.Sprintf("would not be chosen now: %s %s", own.Name, own.Refusal)
}

// against is the first thing in which a node is better than another one.
func (n *Node) against(o *Node) string {
	for i := range n.shares {
		if i < len(o.shares) && n.shares[i] != o.shares[i] {
			return n.Shares[i]
		}
	}
	switch {
	case n.Failures != o.Failures && max(n.Failures, o.Failures) >= 5:
		return count(n.Failures, "failure", "failures")
	case n.UnmetWishes != o.UnmetWishes:
		return count(n.UnmetWishes, "unmet wish", "unmet wishes")
	case n.ServiceTasks != o.ServiceTasks:
		return count(n.ServiceTasks, "task", "tasks") + " of the service"
	case n.Load != o.Load:
		return fmt.Sprintf("load %.1f %%", n.Load)
	}
	return "all else is equal, and its id comes first"
}

func nodeOf(j *schedulerv1.JudgedNode) *Node {
	if j == nil {
		return nil
	}
	n := &Node{ID: j.GetNodeId(), Name: j.GetNodeName(), Rank: j.GetRank(), Refusal: j.GetRefusal(), Failures: j.GetFailures(),
		UnmetWishes: j.GetUnmetWishes(), ServiceTasks: j.GetServiceTasks(), Load: float64(j.GetLoad()) / 10, Resources: j.GetResources()}
	for _, s := range j.GetShares() {
		n.shares = append(n.shares, s.GetTasks())
		n.Shares = append(n.Shares, fmt.Sprintf("%s in %s=%s", count(s.GetTasks(), "task", "tasks"), s.GetKey(), s.GetValue()))
	}
	return n
}

func choiceOf(c *schedulerv1.Choice) Choice {
	out := Choice{LookedAt: c.GetLookedAt(), Candidates: c.GetCandidates(), Nearest: c.GetNearest(), Best: nodeOf(c.GetBest()), Own: nodeOf(c.GetOwn()),
		Refusals: []string{}}
	for _, r := range c.GetRefusals() {
		out.Refusals = append(out.Refusals, count(r.GetNodes(), "node", "nodes")+" "+r.GetWords())
	}
	return out
}

func explanationOf(e *schedulerv1.ExplainResponse) Explanation {
	out := Explanation{Revision: e.GetVersion().GetRevision(), Service: e.GetServiceName(), Ranking: e.GetRanking(), Scale: e.GetScale(), LeftOut: e.GetTasksLeftOut(),
		Next: choiceOf(e.GetNext()), Tasks: []Task{}}
	for _, t := range e.GetTasks() {
		name := taskName(e.GetServiceName(), t.GetSlot(), t.GetForNode())
		state := docker.Title(docker.TaskState(t.GetObserved()))
		row := Task{ID: t.GetId(), Name: name, Node: t.GetNodeName(), State: state, Reason: t.GetReason(), Choice: choiceOf(t.GetChoice())}
		if since := t.GetSince(); since != nil {
			row.Since = since.AsTime().Format(time.RFC3339)
			row.waited = strings.ToLower(units.HumanDuration(max(e.GetClusterTime().AsTime().Sub(since.AsTime()), 0)))
		}
		out.Tasks = append(out.Tasks, row)
	}
	for _, n := range e.GetNodes() {
		out.Nodes = append(out.Nodes, *nodeOf(n))
	}
	return out
}

// WriteTasks prints why tasks are where they are.
func WriteTasks(w io.Writer, format string, resp *schedulerv1.ExplainResponse) error {
	e := explanationOf(resp)
	if format == "json" {
		return table.Inspect(w, "{{json .}}", []Explanation{e})
	}
	list := table.List{Format: format, Columns: []table.Column{
		{Header: "TASK", Field: "Name"}, {Header: "NODE", Field: "Node"}, {Header: "STATE", Field: "State"},
		{Header: "CANDIDATES", Field: "Candidates"}, {Header: "WHY", Field: "Why"},
	}}
	if format != "" {
		return table.Write(w, list, e.Tasks)
	}
	if len(e.Tasks) > 0 {
		if err := table.Write(w, list, e.Tasks); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if e.LeftOut > 0 {
		fmt.Fprintf(w, "%d more tasks are not shown; ask for one with --task.\n", e.LeftOut)
	}
	if e.Scale != "" {
		fmt.Fprintf(w, "Scales by its load: %s.\n", e.Scale)
	}
	return e.writeNext(w)
}

func (e Explanation) writeNext(w io.Writer) error {
	switch {
	case e.Next.Best != nil:
		fmt.Fprintf(w, "One more task would go to %s: %s.\n", e.Next.Best.Name, e.Next.Best.Why())
	default:
		fmt.Fprintln(w, "One more task would wait.")
	}
	if len(e.Next.Refusals) > 0 {
		fmt.Fprintf(w, "Kept out: %s.\n", strings.Join(e.Next.Refusals, ", "))
	}
	if e.Next.Nearest != "" {
		fmt.Fprintf(w, "Nearest: %s.\n", e.Next.Nearest)
	}
	_, err := fmt.Fprintf(w, "Ranked by: %s.\nAt revision %d.\n", e.Ranking, e.Revision)
	return err
}

// WriteNodes prints how every node compares for one more task.
func WriteNodes(w io.Writer, format string, resp *schedulerv1.ExplainResponse) error {
	e := explanationOf(resp)
	if format == "json" {
		return table.Inspect(w, "{{json .}}", []Explanation{e})
	}
	list := table.List{Format: format, Columns: []table.Column{
		{Header: "NODE", Field: "Name"}, {Header: "RANK", Field: "Place"}, {Header: "WHY", Field: "Why"},
	}}
	if err := table.Write(w, list, e.Nodes); err != nil || format != "" {
		return err
	}
	fmt.Fprintf(w, "\nRanked by: %s.\nAt revision %d.\n", e.Ranking, e.Revision)
	return nil
}
