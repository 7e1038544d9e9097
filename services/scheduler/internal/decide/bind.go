package decide

import (
	"slices"
	"strings"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/reason"
)

const (
	// failureWindow is how long a failure speaks against a node, and manyFailures from how many on.
	failureWindow = 5 * time.Minute
	manyFailures  = 5
	// reasonPause is the least time between two reasons of a waiting task that differ in figures alone.
	reasonPause = 10 * time.Second
)

// found is a place for a task.
type found struct {
	node      *place.Node
	addresses []*typesv1.TaskAddress
}

// bind gives a new task the best node and its addresses, or says why it has to wait. Held is the reason of a task that has
// a place.
func (v *visit) bind(t *typesv1.Task, d *typesv1.TaskDecided, held string) {
	f, why := v.search(t)
	if why != "" {
		v.awaitPlace()
		d.Reason = why
		return
	}
	v.settle(f, t.GetSpecVersion(), d)
	d.Reason = held
}

func (v *visit) settle(f found, version uint64, d *typesv1.TaskDecided) {
	req := v.request(version)
	d.NodeId, d.Addresses, d.Reserved, d.HostPorts = f.node.ID(), f.addresses, req.Reserved(f.node), req.Ports
	v.w.restOn(typesv1.Kind_KIND_NODE, f.node.ID())
	v.w.restOn(typesv1.Kind_KIND_SERVICE, v.g.ID)
}

// bindPending does the same for a task that waits already. While nothing has changed it costs no writing, and figures
// alone are written at most every few seconds.
func (v *visit) bindPending(t *typesv1.Task, held string) {
	f, why := v.search(t)
	if why == "" {
		v.change(t, func(d *typesv1.TaskDecided) {
			v.settle(f, t.GetSpecVersion(), d)
			d.Reason = held
		})
		return
	}
	v.awaitPlace()
	was := t.GetDecided().GetReason()
	if was == why {
		return
	}
	if next := timeOf(t.GetMeta().GetUpdatedAt()).Add(reasonPause); reason.Gist(was) == reason.Gist(why) && v.w.now.Before(next) {
		v.at(next)
		return
	}
	v.change(t, func(d *typesv1.TaskDecided) { d.Reason = why })
}

// search finds a node and addresses on it, or says why there is none. Nothing is claimed when there is none.
func (v *visit) search(t *typesv1.Task) (found, string) {
	version := t.GetSpecVersion()
	if why := v.exhausted[version]; why != "" {
		return found{}, why
	}
	for {
		n, why := v.best(t)
		if why != "" {
			return found{}, why
		}
		mark := v.w.addresses.Mark()
		own, room := v.w.machineAddress(n)
		if !room {
			n.Full = true // and the next best is asked
			v.w.fullNodes = append(v.w.fullNodes, n)
			continue
		}
		addresses, why := v.w.addresses.Networks(v.spec(version))
		if why != "" {
			v.w.addresses.Unclaim(mark)
			if v.exhausted == nil {
				v.exhausted = map[uint64]string{}
			}
			v.exhausted[version] = why
			return found{}, why
		}
		if own != nil {
			addresses = slices.Insert(addresses, 0, own)
		}
		return found{n, addresses}, ""
	}
}

// best is the best node for a task: its own in a service that has one on each.
func (v *visit) best(t *typesv1.Task) (*place.Node, string) {
	p := v.picker(t.GetSpecVersion())
	id := t.GetDecided().GetForNode()
	if id == "" {
		n, why := p.Best()
		v.awaitHold()
		return n, why
	}
	n := v.w.book.Node(id)
	if n == nil {
		return nil, "its node was removed from the cluster"
	}
	v.at(n.Hold)
	if p.Refuses(n) != place.None {
		return nil, v.request(t.GetSpecVersion()).Explain([]*place.Node{n}, p.Refuses)
	}
	return n, ""
}

// awaitHold asks again when nodes that are held off may be used again.
func (v *visit) awaitHold() {
	for _, n := range v.w.holds() {
		v.at(n.Hold)
	}
}

// hasPlace reports whether any node takes one more task of what the service's tasks should be.
func (v *visit) hasPlace() bool {
	n, _ := v.picker(v.target).Best()
	if n == nil {
		v.awaitPlace()
		v.awaitHold()
	}
	return n != nil
}

func (v *visit) request(version uint64) *place.Request {
	return v.g.Request(version, v.w.s.Cluster().GetSpec().GetScheduling().GetStrategy())
}

// picker chooses nodes for tasks of a spec version.
func (v *visit) picker(version uint64) *place.Picker {
	if p := v.pickers[version]; p != nil {
		return p
	}
	req := v.request(version)
	c := place.Cluster{Now: v.w.now, Nodes: v.w.book.Nodes, Count: v.g.OnNode, Failures: v.failures(version)}
	switch {
	case v.g.PerNode():
		c.Nodes = nil // each task has its node
	case len(v.w.book.Wishes) == 0:
		c.ByLoad, c.Least = v.w.book.ByLoad, func() int { return v.g.Least(len(v.w.book.Nodes)) }
	}
	for _, a := range req.Affinities {
		c.Neighbours = append(c.Neighbours, v.neighbours(a))
	}
	p := place.NewPicker(req, c)
	if v.pickers == nil {
		v.pickers = map[uint64]*place.Picker{}
	}
	v.pickers[version] = p
	return p
}

// failures counts the tasks of a spec version that ended by themselves lately, by node. Since is when they were replaced.
func (v *visit) failures(version uint64) map[*place.Node]int {
	if len(v.g.Failed) < manyFailures {
		return nil
	}
	out := map[*place.Node]int{}
	for _, t := range v.g.Failed {
		recent := book.Wanted(t) || v.w.now.Sub(timeOf(t.GetDecided().GetSince())) < failureWindow
		if n := v.w.book.Node(t.GetDecided().GetNodeId()); n != nil && recent && t.GetSpecVersion() == version {
			out[n]++
		}
	}
	return out
}

// neighbours counts the tasks that an affinity is about. The entry of no node says that the service's own are among them.
func (v *visit) neighbours(a *typesv1.Affinity) map[*place.Node]int {
	out := map[*place.Node]int{}
	for _, g := range v.w.book.Groups {
		if !concerns(a, g) {
			continue
		}
		for n, tasks := range g.OnNode {
			out[n] += tasks
		}
		if g == v.g {
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

// accounted tells the pickers what a change of a task means for its node.
func (v *visit) accounted(was, is *typesv1.Task) {
	v.exhausted = nil
	if len(v.pickers) == 0 {
		return
	}
	from, to := v.w.book.Node(was.GetDecided().GetNodeId()), v.w.book.Node(is.GetDecided().GetNodeId())
	before, after := weight(was), weight(is)
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

// weighing is what a task is for its node: whether it holds anything, and counts.
type weighing struct {
	holds  bool
	wanted int
}

func weight(t *typesv1.Task) weighing {
	if t == nil || dead(t) {
		return weighing{}
	}
	return weighing{holds: true, wanted: count(book.Wanted(t))}
}

func (v *visit) spec(version uint64) *typesv1.TaskSpec { return state.SpecOf(v.svc, version) }
