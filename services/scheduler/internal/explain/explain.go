// Package explain says why tasks are where they are, and why others are nowhere.
//
// It owns the question, not the answer: filters, order and words are package place's, and the figures are those that a
// decision would see now. What held when a task was placed is not kept; so each node is judged as if the task was nowhere
// and had to be placed again. It is pure, and keeps nothing between two questions.
package explain

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/autoscale"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/draft"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/fleet"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/visit"
)

const (
	// mostTasks and mostNodes bound an answer.
	mostTasks, mostNodes = 100, 10_000
)

// Question is what somebody wants to know.
type Question struct {
	Service *typesv1.Service
	// Task is a slot number, an id or a prefix of one; "" means all.
	Task string
	// Nodes asks for every node.
	Nodes bool
}

// Of answers. Errors: NotFound (no wanted task is meant by Task).
func Of(s *state.Snapshot, q Question) (*schedulerv1.ExplainResponse, error) {
	e := &explanation{s: s, book: book.New(), svc: q.Service}
	e.book.Advance(s)
	tasks := e.tasks(q.Task)
	if q.Task != "" && len(tasks) == 0 {
		return nil, errs.New(errs.NotFound, "service %q has no task %s that is to run", q.Service.GetSpec().GetAnnotations().GetName(), q.Task)
	}
	out := &schedulerv1.ExplainResponse{
		Version: s.Version().Proto(), ClusterTime: timestamppb.New(s.ClusterTime()),
		ServiceId: q.Service.GetMeta().GetId(), ServiceName: q.Service.GetSpec().GetAnnotations().GetName(),
	}
	if over := len(tasks) - mostTasks; over > 0 {
		tasks, out.TasksLeftOut = tasks[:mostTasks], uint64(over)
	}
	for _, t := range tasks {
		out.Tasks = append(out.Tasks, e.task(t))
	}
	out.Scale = autoscale.Words(s, q.Service, len(e.book.Ready), s.ClusterTime())
	e.next(out, q.Nodes)
	return out, nil
}

// explanation is one answer under way.
type explanation struct {
	s    *state.Snapshot
	book *book.Book
	svc  *typesv1.Service
}

// tasks are the wanted tasks that are meant: those without a place first, then by slot.
func (e *explanation) tasks(ref string) (out []*typesv1.Task) {
	slot, err := strconv.ParseUint(ref, 10, 64)
	for t := range e.s.TasksOfService(e.svc.GetMeta().GetId()) {
		meant := ref == "" || err == nil && t.GetDecided().GetSlot() == slot || strings.HasPrefix(t.GetMeta().GetId(), ref)
		if meant && book.Wanted(t) {
			out = append(out, t)
		}
	}
	slices.SortStableFunc(out, func(a, b *typesv1.Task) int {
		return cmp.Or(cmp.Compare(placed(a), placed(b)), cmp.Compare(a.GetDecided().GetSlot(), b.GetDecided().GetSlot()))
	})
	return out
}

func placed(t *typesv1.Task) int { return min(1, len(t.GetDecided().GetNodeId())) }

// ask judges nodes for one task of a spec version, by the book as it is now. Those of a slot that has volumes are the one that
// holds them.
func (e *explanation) ask(version, slot uint64, nodes []*place.Node) (req *place.Request, judged []place.Judgement, tally place.Tally) {
	f := fleet.New(draft.New(e.book, e.s.ClusterTime(), func() string { return "" }, 1))
	look := visit.Visitor{Fleet: f}
	look.Look(e.book.Group(e.svc.GetMeta().GetId()), false, func(v *visit.Visit) {
		nodes, p := v.NodesFor(version, slot, nodes), v.Picker(version)
		req, judged, tally = v.Request(version), p.Judge(nodes), v.Request(version).Tally(nodes, p.Refuses)
	})
	return req, judged, tally
}

// nodesFor are those on which a task may be: all, or its own in a service that has one on each.
func (e *explanation) nodesFor(t *typesv1.Task) []*place.Node {
	id := t.GetDecided().GetForNode()
	if id == "" {
		return e.book.Nodes
	}
	if n := e.book.Node(id); n != nil {
		return []*place.Node{n}
	}
	return nil
}

func (e *explanation) task(t *typesv1.Task) *schedulerv1.ExplainedTask {
	id, d := t.GetMeta().GetId(), t.GetDecided()
	node := e.s.Node(d.GetNodeId())
	out := &schedulerv1.ExplainedTask{
		Id: id, Slot: d.GetSlot(), NodeId: d.GetNodeId(), SpecVersion: t.GetSpecVersion(), Desired: state.DesiredState(t),
		Observed: state.TaskState(t, node), Reason: state.TaskReason(t, node), Since: d.GetSince(),
	}
	if node != nil {
		out.NodeName = e.book.Node(d.GetNodeId()).Name()
	}
	if d.GetForNode() != "" {
		out.ForNode = e.book.Node(d.GetForNode()).Name()
	}
	// As if it was nowhere: what it holds and how often it counts speaks neither for nor against its node.
	e.book.SetTask(id, nil)
	_, judged, tally := e.ask(t.GetSpecVersion(), d.GetSlot(), e.nodesFor(t))
	out.Choice = choice(judged, tally, d.GetNodeId())
	e.book.SetTask(id, t)
	return out
}

// next says where one more task would go.
func (e *explanation) next(out *schedulerv1.ExplainResponse, all bool) {
	nodes := e.book.Nodes
	if g := e.book.Group(e.svc.GetMeta().GetId()); g.PerNode() {
		nodes = slices.DeleteFunc(slices.Clone(nodes), func(n *place.Node) bool { return g.OnNode[n] > 0 })
	}
	req, judged, tally := e.ask(e.svc.GetSpecVersion(), 0, nodes)
	out.Ranking, out.Next = req.Ranking(), choice(judged, tally, "")
	if !all {
		return
	}
	for i, j := range judged[:min(len(judged), mostNodes)] {
		out.Nodes = append(out.Nodes, told(j, i))
	}
}

// choice is how nodes compare; own is the node that the task is on.
func choice(judged []place.Judgement, tally place.Tally, own string) *schedulerv1.Choice {
	out := &schedulerv1.Choice{LookedAt: uint32(len(judged))}
	for i, j := range judged {
		if j.Passes() {
			out.Candidates++
		}
		if i == 0 && j.Passes() {
			out.Best = told(j, i)
		}
		if own != "" && j.Node.ID() == own {
			out.Own = told(j, i)
		}
	}
	for _, x := range tally.Refusals {
		out.Refusals = append(out.Refusals, &schedulerv1.Refusal{Nodes: uint32(x.Nodes), Words: x.Words})
	}
	if out.GetCandidates() == 0 {
		out.Nearest = tally.Nearest
	}
	return out
}

// told is a judgement as it goes out; i is its place in the order, from 0.
func told(j place.Judgement, i int) *schedulerv1.JudgedNode {
	out := &schedulerv1.JudgedNode{
		NodeId: j.Node.ID(), NodeName: j.Node.Name(), Refusal: j.Refusal(), Failures: uint32(j.Failures), UnmetWishes: uint32(j.Wishes),
		ServiceTasks: uint32(max(j.Tasks, 0)), Load: j.Load, Resources: j.Resources(),
	}
	if j.Passes() {
		out.Rank = uint32(i + 1)
	}
	for _, s := range j.Shares {
		out.Shares = append(out.Shares, &schedulerv1.Share{Key: s.Key, Value: s.Value, Tasks: uint32(max(s.Tasks, 0))})
	}
	return out
}
