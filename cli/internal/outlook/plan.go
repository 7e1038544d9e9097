// Package outlook shows what a scheduler tells people: what would happen, and why tasks are where they are.
//
// It owns the form: tables and sentences for people, rows for templates, one object for programs. It adds no judgement of its
// own. It keeps nothing.
package outlook

import (
	"fmt"
	"io"
	"strings"
	"time"

	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"

	"github.com/shoalproject/shoal/cli/internal/table"
)

// Plan is a plan as programs get it.
type Plan struct {
	Revision uint64
	Actions  []Action
	// LeftOut are further actions that are not listed.
	LeftOut  uint64 `json:",omitempty"`
	Rests    bool
	Unrest   string `json:",omitempty"`
	Waits    []Wait
	Nodes    []NodeLoad
	Services []Serving
}

// Action is one thing that would be done.
type Action struct {
	// Step counts what is decided at once, from 1; After is how long after the change, at the earliest.
	Step          int
	After         string
	Action        string
	Task          string
	From, To      string `json:",omitempty"`
	Version       uint64 `json:",omitempty"`
	Reason        string `json:",omitempty"`
	Anyway        bool
	Service, Slot string `json:",omitempty"`
}

// Node is where it is done.
func (a Action) Node() string {
	switch {
	case a.From != "" && a.To != "" && a.From != a.To:
		return a.From + " -> " + a.To
	case a.To != "":
		return a.To
	}
	return a.From
}

// Why is the reason, and whether it would happen anyway.
func (a Action) Why() string {
	if !a.Anyway {
		return a.Reason
	}
	return strings.TrimPrefix(a.Reason+"; in any case", "; ")
}

// Wait is a task that would wait in the end.
type Wait struct {
	Task, Reason string
	// Now says that it waits already.
	Now bool
}

// NodeLoad is the number of tasks of a node now and in the end.
type NodeLoad struct {
	Node          string
	Before, After uint32
}

// Serving is how many tasks of a service serve: now, the fewest on the way, in the end; and what it promises.
type Serving struct {
	Service              string
	Before, Least, After uint32
	Floor                uint32
	Kept                 bool
}

// Promise is the floor and whether it is kept.
func (s Serving) Promise() string {
	switch {
	case s.Floor == 0:
		return "none"
	case s.Kept:
		return fmt.Sprintf("%d, kept", s.Floor)
	}
	return fmt.Sprintf("%d, NOT kept", s.Floor)
}

func planOf(p *schedulerv1.PlanResponse) Plan {
	out := Plan{Revision: p.GetVersion().GetRevision(), LeftOut: p.GetActionsLeftOut(), Rests: p.GetRests(), Unrest: p.GetUnrest(),
		Actions: []Action{}, Waits: []Wait{}, Nodes: []NodeLoad{}, Services: []Serving{}}
	for i, s := range p.GetSteps() {
		for _, a := range s.GetActions() {
			out.Actions = append(out.Actions, actionOf(i+1, s.GetAfter().AsDuration(), a))
		}
	}
	for _, w := range p.GetWaits() {
		out.Waits = append(out.Waits, Wait{Task: taskName(w.GetServiceName(), w.GetSlot(), ""), Reason: w.GetReason(), Now: w.GetAnyway()})
	}
	for _, n := range p.GetNodes() {
		out.Nodes = append(out.Nodes, NodeLoad{n.GetNodeName(), n.GetBefore(), n.GetAfter()})
	}
	for _, s := range p.GetServices() {
		name := s.GetServiceName()
		if name == "" {
			name = s.GetServiceId()
		}
		out.Services = append(out.Services, Serving{name, s.GetBefore(), s.GetLeast(), s.GetAfter(), s.GetFloor(), s.GetKept()})
	}
	return out
}

func actionOf(step int, after time.Duration, a *schedulerv1.PlannedAction) Action {
	service := a.GetServiceName()
	if service == "" {
		service = table.ShortID(a.GetServiceId()) // it is gone by then
	}
	node := a.GetToNode()
	if node == "" {
		node = a.GetFromNode()
	}
	out := Action{Step: step, After: after.String(), Task: taskName(service, a.GetSlot(), node), From: a.GetFromNode(), To: a.GetToNode(),
		Version: a.GetSpecVersion(), Reason: a.GetReason(), Anyway: a.GetAnyway(), Service: service,
		Action: strings.ToLower(strings.TrimPrefix(a.GetKind().String(), "ACTION_KIND_"))}
	if a.GetSlot() > 0 {
		out.Slot = fmt.Sprint(a.GetSlot())
	}
	if a.GetKind() == schedulerv1.ActionKind_ACTION_KIND_STATUS {
		out.Task = service
	}
	return out
}

// taskName is service.slot, or service.node where there is one on each.
func taskName(service string, slot uint64, node string) string {
	if slot > 0 {
		return fmt.Sprintf("%s.%d", service, slot)
	}
	return strings.TrimSuffix(service+"."+node, ".")
}

// WritePlan prints what would happen.
func WritePlan(w io.Writer, format string, resp *schedulerv1.PlanResponse) error {
	p := planOf(resp)
	if format == "json" {
		return table.Inspect(w, "{{json .}}", []Plan{p})
	}
	actions := table.List{Format: format, Columns: []table.Column{
		{Header: "STEP", Field: "Step"}, {Header: "AFTER", Field: "After"}, {Header: "ACTION", Field: "Action"},
		{Header: "TASK", Field: "Task"}, {Header: "NODE", Field: "Node"}, {Header: "WHY", Field: "Why"},
	}}
	if format != "" {
		return table.Write(w, actions, p.Actions)
	}
	if len(p.Actions) == 0 {
		fmt.Fprintln(w, "No task would start, move or stop.")
	} else if err := table.Write(w, actions, p.Actions); err != nil {
		return err
	}
	if p.LeftOut > 0 || !p.Rests {
		fmt.Fprintf(w, "\nThis is not all: %s.\n", p.Unrest)
	}
	return p.writeEnd(w)
}

// writeEnd prints how it would end.
func (p Plan) writeEnd(w io.Writer) error {
	if len(p.Services) > 0 {
		fmt.Fprintln(w)
		if err := table.Write(w, table.List{Columns: []table.Column{
			{Header: "SERVICE", Field: "Service"}, {Header: "SERVING NOW", Field: "Before"}, {Header: "AT LEAST", Field: "Least"},
			{Header: "IN THE END", Field: "After"}, {Header: "FLOOR", Field: "Promise"},
		}}, p.Services); err != nil {
			return err
		}
	}
	if len(p.Nodes) > 0 {
		fmt.Fprintln(w)
		if err := table.Write(w, table.List{Columns: []table.Column{
			{Header: "NODE", Field: "Node"}, {Header: "TASKS NOW", Field: "Before"}, {Header: "IN THE END", Field: "After"},
		}}, p.Nodes); err != nil {
			return err
		}
	}
	for i, x := range p.Waits {
		if i == 0 {
			fmt.Fprintln(w)
		}
		when := "would wait"
		if x.Now {
			when = "waits now and would still wait"
		}
		fmt.Fprintf(w, "%s %s: %s\n", x.Task, when, x.Reason)
	}
	fmt.Fprintf(w, "\nNothing was changed. This is what revision %d would lead to.\n", p.Revision)
	return nil
}
