package visit

import (
	"strings"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

// Request is what tasks of a spec version ask of a node.
func (v *Visit) Request(version uint64) *place.Request {
	return v.Group.Request(version, v.Snapshot().Cluster().GetSpec().GetScheduling().GetStrategy())
}

// picker is that of one spec version.
type picker struct {
	*place.Picker
	version uint64
}

// Picker chooses nodes for tasks of a spec version.
func (v *Visit) Picker(version uint64) *place.Picker {
	for _, p := range v.pickers {
		if p.version == version {
			return p.Picker
		}
	}
	req := v.Request(version)
	c := place.Cluster{Now: v.Now, Nodes: v.Book.Nodes, Count: v.Group.OnNode, Failures: v.failures(version)}
	switch {
	case v.Group.PerNode():
		c.Nodes = nil // each task has its node
	case len(v.Book.Wishes) == 0:
		c.Order = &v.order
	}
	for _, a := range req.Affinities {
		c.Neighbours = append(c.Neighbours, v.neighbours(a))
	}
	var old *place.Picker
	if n := len(v.pickers); n < cap(v.pickers) {
		old = v.pickers[:n+1][n].Picker // of an earlier visit
	}
	p := place.NewPicker(req, c, old)
	v.pickers = append(v.pickers, picker{p, version})
	return p
}

// order is the nodes by load, as the book keeps them.
type order struct {
	*book.Book
	group *book.Group
}

// Least is a number of the service's tasks that no node has fewer of.
func (o *order) Least() int { return o.group.Least(len(o.Nodes)) }

// failures counts the tasks of a spec version that ended by themselves lately, by node. Since is when they were replaced.
func (v *Visit) failures(version uint64) map[*place.Node]int {
	if len(v.Group.Failed) < manyFailures {
		return nil
	}
	out := map[*place.Node]int{}
	for _, t := range v.Group.Failed {
		recent := book.Wanted(t) || v.Now.Sub(task.TimeOf(t.GetDecided().GetSince())) < failureWindow
		if n := v.Book.Node(t.GetDecided().GetNodeId()); n != nil && recent && t.GetSpecVersion() == version {
			out[n]++
		}
	}
	return out
}

// neighbours counts the tasks that an affinity is about. The entry of no node says that the service's own are among them.
func (v *Visit) neighbours(a *typesv1.Affinity) map[*place.Node]int {
	out := map[*place.Node]int{}
	for _, g := range v.Book.Groups {
		if !concerns(a, g) {
			continue
		}
		for n, tasks := range g.OnNode {
			out[n] += tasks
		}
		if g == v.Group {
			out[nil] = 1
		}
	}
	return out
}

func concerns(a *typesv1.Affinity, g *book.Group) bool {
	annotations := g.Service.GetSpec().GetAnnotations()
	if a.GetService() != "" {
		return g.Service != nil && (a.GetService() == g.ID || a.GetService() == annotations.GetName())
	}
	key, value, exact := strings.Cut(a.GetLabel(), "=")
	have, there := annotations.GetLabels()[key]
	return there && (!exact || have == value)
}

// changed tells the pickers what a change of a task means for its node; is is nil when it goes.
func (v *Visit) changed(was, is *typesv1.Task) {
	v.exhausted = nil
	if len(v.pickers) > 0 {
		v.accounted(v.nodeOf(was), v.nodeOf(is), weight(was), weight(is))
	}
}

// accounted is changed, of a task that was on one node and is on another, nil for none, and what it weighs there.
func (v *Visit) accounted(from, to *place.Node, before, after weighing) {
	v.exhausted = nil
	for _, p := range v.pickers {
		switch {
		case from == to && from != nil && before != after:
			p.Changed(from, after.wanted-before.wanted)
		case from != to:
			if from != nil {
				p.Changed(from, -before.wanted)
			}
			if to != nil {
				p.Changed(to, after.wanted)
			}
		}
	}
}

func (v *Visit) nodeOf(t *typesv1.Task) *place.Node {
	if t == nil {
		return nil
	}
	return v.Book.Node(book.NodeOf(t))
}

// weighing is what a task is for its node: whether it holds anything, and counts.
type weighing struct {
	holds  bool
	wanted int
}

func weight(t *typesv1.Task) weighing {
	if t == nil || task.Dead(t) {
		return weighing{}
	}
	w := weighing{holds: true}
	if book.Wanted(t) {
		w.wanted = 1
	}
	return w
}

// Spec is the spec of a version, nil when it is forgotten.
func (v *Visit) Spec(version uint64) *typesv1.TaskSpec { return state.SpecOf(v.Service, version) }
