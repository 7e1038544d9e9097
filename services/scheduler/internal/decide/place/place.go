// Package place says on which node a task goes: which nodes fit, which of them is best, and, when none fits, why.
//
// It owns the filters, the order of preference and the words for them. It is pure and keeps no state of the cluster: who
// calls it keeps the nodes' figures. A Picker belongs to one decision.
package place

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Amount is what is counted on every node.
type Amount struct{ CPUs, Memory, PIDs, Disk int64 }

// Node is a machine with what is on it.
type Node struct {
	Object *typesv1.Node
	// Ord is its place in the order of ids among all nodes.
	Ord int
	// Seat is for whoever keeps figures by node: a small number of its own that stays while it is there.
	Seat int
	// Closed is why it takes no task at all; None if it does.
	Closed Cause
	// Hold is the time until which it gets no new tasks, because it was lost again and again.
	Hold time.Time
	// Tasks are those that are wanted and have not ended.
	Tasks int
	// Have is what the machine has, Used what is reserved, also by tasks that are still stopping.
	// Leaving is the part of Used that tasks hold which are told to stop.
	Have, Used, Leaving Amount
	// Full says that no address is left for its tasks.
	Full bool
	// Moved is for whoever keeps nodes in order: when it was noted last that it has to be sorted in anew.
	Moved int
	// Changed is for whoever remembers what was found of the machine: it grows with each change of the object.
	Changed uint64
	// Rests is the last decision that rests on it.
	Rests uint64

	classes []class            // what wanted tasks hold
	pieces  map[string]*pieces // generic resources by kind
	ports   map[Port]int       // host ports that are taken, and how often
}

// Port is a host port.
type Port struct {
	Protocol typesv1.Protocol
	Number   uint32
}

// NewNode is a node with nothing on it.
func NewNode(n *typesv1.Node) *Node {
	out := &Node{}
	out.Update(n)
	return out
}

// Update takes over a newer state of the machine; what is on it stays.
func (n *Node) Update(o *typesv1.Node) {
	d := o.GetStatus().GetDescription()
	n.Object = o
	n.Have = Amount{CPUs: d.GetNanoCpus(), Memory: d.GetMemoryBytes(), PIDs: d.GetPids(), Disk: d.GetDiskBytes()}
	n.Closed = closed(o)
	n.Hold = time.Time{}
	if h := o.GetFlaps().GetHoldUntil(); h != nil {
		n.Hold = h.AsTime()
	}
	n.offer(d.GetGeneric())
}

// ID is the machine's id; a nil node has none.
func (n *Node) ID() string {
	if n == nil {
		return ""
	}
	return n.Object.GetMeta().GetId()
}

// Name is what a person calls the node.
func (n *Node) Name() string {
	if n == nil {
		return "a removed node"
	}
	return cmp.Or(state.Hostname(n.Object), n.ID())
}

// Avoided reports whether a node has a taint that only asks to be avoided.
func Avoided(n *typesv1.Node) bool {
	return slices.ContainsFunc(n.GetSpec().GetTaints(), func(t *typesv1.Taint) bool { return t.GetEffect() == preferNoSchedule })
}

// Drains reports whether the node gives its tasks away.
func (n *Node) Drains() bool {
	return n != nil && availability(n) == typesv1.Availability_AVAILABILITY_DRAIN
}

// Down reports whether the node is lost.
func (n *Node) Down() bool {
	return n.Object.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_DOWN
}

// Active reports whether the node is in session and takes tasks: only there rules are enforced on what runs.
func (n *Node) Active() bool { return n != nil && n.Closed == None }

func availability(n *Node) typesv1.Availability { return n.Object.GetSpec().GetAvailability() }

// closed is the first reason for which a node takes no task at all.
func closed(n *typesv1.Node) Cause {
	switch n.GetStatus().GetState() {
	case typesv1.NodeState_NODE_STATE_UNSPECIFIED:
		return NotConnected
	case typesv1.NodeState_NODE_STATE_SUSPECT:
		return Silent
	case typesv1.NodeState_NODE_STATE_DOWN:
		return Down
	case typesv1.NodeState_NODE_STATE_READY:
	}
	switch n.GetSpec().GetAvailability() {
	case typesv1.Availability_AVAILABILITY_PAUSE:
		return Paused
	case typesv1.Availability_AVAILABILITY_DRAIN:
		return Drained
	case typesv1.Availability_AVAILABILITY_ACTIVE, typesv1.Availability_AVAILABILITY_UNSPECIFIED:
	}
	if roles := n.GetIdentity().GetRoles(); len(roles) > 0 && !slices.Contains(roles, authzv1.Role_ROLE_AGENT) {
		return TrafficOnly
	}
	return None
}

func (a *Amount) add(r *typesv1.Resources, sign int64) {
	a.CPUs += sign * r.GetNanoCpus()
	a.Memory += sign * r.GetMemoryBytes()
	a.PIDs += sign * r.GetPids()
	a.Disk += sign * r.GetDiskBytes()
}

// Leave notes of what is reserved that it will soon be free, or takes that back (sign -1).
func (n *Node) Leave(r *typesv1.Resources, sign int64) { n.Leaving.add(r, sign) }

// class is what the wanted tasks of one priority hold.
type class struct {
	priority int32
	held     Amount
}

// Keep notes of what is reserved that a task of a priority holds it for good, or takes that back (sign -1).
func (n *Node) Keep(priority int32, r *typesv1.Resources, sign int64) {
	if r == nil {
		return
	}
	i := slices.IndexFunc(n.classes, func(c class) bool { return c.priority == priority })
	if i < 0 {
		i = len(n.classes)
		n.classes = append(n.classes, class{priority: priority})
	}
	if n.classes[i].held.add(r, sign); n.classes[i].held == (Amount{}) {
		n.classes = slices.Delete(n.classes, i, i+1)
	}
}

// Firm is what tasks hold that nobody of a priority may displace.
func (n *Node) Firm(priority int32) (out Amount) {
	for _, c := range n.classes {
		if c.priority >= priority {
			out.CPUs += c.held.CPUs
			out.Memory += c.held.Memory
			out.PIDs += c.held.PIDs
			out.Disk += c.held.Disk
		}
	}
	return out
}

// Reserve adds to the node what a task holds, or takes it away (sign -1).
func (n *Node) Reserve(r *typesv1.Resources, sign int64) {
	if r == nil {
		return
	}
	n.Used.add(r, sign)
	for _, g := range r.GetGeneric() {
		n.take(g, sign)
	}
}

// Occupy takes host ports, or gives them back (sign -1).
func (n *Node) Occupy(ports []*typesv1.PortConfig, sign int) {
	for _, c := range ports {
		p := Port{c.GetProtocol(), c.GetPublishedPort()}
		if n.ports == nil {
			n.ports = map[Port]int{}
		}
		if n.ports[p] += sign; n.ports[p] == 0 {
			delete(n.ports, p)
		}
	}
}
