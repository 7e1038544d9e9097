package visit

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/autoscale"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/preempt"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

// makeRoom displaces tasks of a lower priority, if the cluster allows it and that makes a place for the task. While they stop
// the place is kept for it.
func (v *Visit) makeRoom(t *typesv1.Task) (preempt.Room, bool) {
	version := t.GetSpecVersion()
	if !v.Snapshot().Cluster().GetSpec().GetScheduling().GetPreemption() || v.roomless[version] || v.clings(version) || v.Request(version).Newer ||
		v.LowestPriority() >= v.Group.Priority() {
		return preempt.Room{}, false
	}
	home := v.home(version, t.GetDecided().GetSlot())
	if home.clash != "" {
		return preempt.Room{}, false
	}
	id := cmp.Or(t.GetDecided().GetForNode(), home.node)
	room, ok := v.findRoom(version, id)
	if !ok {
		if v.roomless == nil {
			v.roomless = map[uint64]bool{}
		}
		v.roomless[version] = id == "" // of another node it says nothing
		return room, false
	}
	for _, victim := range room.Victims {
		v.displace(victim, fmt.Sprintf(preempt.Displaced+"%s (priority %d)", state.TaskName(v.Service, t), v.Group.Priority()))
	}
	v.RestOnNode(room.Node)
	v.RestOnService(v.Group)
	return room, true
}

// rooms are the rooms that a spec version may have, and up to where they have followed what happens on nodes.
type rooms struct {
	preempt.Search
	mark int
}

// findRoom is the best room on any node, or on one.
func (v *Visit) findRoom(version uint64, node string) (preempt.Room, bool) {
	open := func(n *place.Node) bool { return v.Picker(version).Forbids(n) == place.None }
	if node != "" {
		one := preempt.Search{Ask: v.ask(version)}
		if n := v.Book.Node(node); n != nil {
			return one.Find([]*place.Node{n}, open)
		}
		return preempt.Room{}, false
	}
	r := v.rooms[version]
	if r == nil {
		r = &rooms{}
		_, r.mark = v.Book.Moved(0)
		r.Ask = v.ask(version)
		if len(v.Request(version).Affinities) == 0 { // with them a task elsewhere decides where others may go
			if v.rooms == nil {
				v.rooms = map[uint64]*rooms{}
			}
			v.rooms[version] = r
		}
		return r.Find(v.Book.Nodes, open)
	}
	var moved []*place.Node
	moved, r.mark = v.Book.Moved(r.mark)
	r.Ask = v.ask(version) // of the tasks as they are now
	return r.Find(moved, open)
}

// ask is what a task of a spec version asks of nodes that are too full.
func (v *Visit) ask(version uint64) *preempt.Ask {
	on := v.OnNode()
	return &preempt.Ask{Request: v.Request(version), Own: v.Group, Group: v.Book.Group, Lost: v.Lost,
		Tasks: func(n *place.Node) []*typesv1.Task { return on(n.ID()) }, Replicas: v.replicas}
}

// replicas is how many tasks a service is to have in this decision: also those that its load calls for when it has its turn only
// later. That it calls for fewer counts once that is noted.
func (v *Visit) replicas(svc *typesv1.Service) uint64 {
	want := state.Replicas(svc)
	if scale, _ := autoscale.Next(v.Snapshot(), svc, len(v.Book.Ready), v.Now); scale != nil {
		want = max(want, scale.GetReplicas())
	}
	return want
}

// clings reports whether tasks of a spec version must be where others are. They displace nobody: who has to go might be, or
// drive away, whom they must be near, and it would begin again.
func (v *Visit) clings(version uint64) bool {
	return slices.ContainsFunc(v.Request(version).Affinities, func(a *typesv1.Affinity) bool { return !a.GetAnti() && !a.GetPreferred() })
}

// displace stops a task of another service, which is looked at again for it within this decision. One that this decision has
// placed was never there, and waits for another place; one that was to even out the load is not made at all.
func (v *Visit) displace(t *typesv1.Task, reason string) {
	g := v.Book.Group(t.GetServiceId())
	v.Disturbed[g] = struct{}{}
	if preempt.Limited(g) {
		clear(v.rooms) // it has one less to give on any node
	}
	v.pickers = nil // they know nothing of others
	if task.Fresh(t) && t.GetDecided().GetMovedFrom() != "" {
		v.DropTask(t)
		return
	}
	next := task.Copy(t)
	d := next.GetDecided()
	if v.Settled(t) {
		d.Desired, d.Reason, d.Since = task.Shutdown, reason, v.Stamp
	} else {
		v.Release(t)
		d.NodeId, d.Addresses, d.Reserved, d.HostPorts, d.Volumes = "", nil, nil, nil, nil
	}
	v.PutTask(t, next)
}

// awaits reports whether a task that waits on a node for others to stop does so with reason.
func (v *Visit) awaits(t *typesv1.Task) bool {
	n := v.Book.Node(t.GetDecided().GetAwaitedNodeId())
	return n != nil && v.Picker(t.GetSpecVersion()).Forbids(n) == place.None && v.ask(t.GetSpecVersion()).Clears(n)
}

// lift lets a place be looked for without what the task itself holds on the node that it awaits (sign -1), or lays that down
// again.
func (v *Visit) lift(t *typesv1.Task, sign int) {
	n := v.Book.Node(t.GetDecided().GetAwaitedNodeId())
	if n == nil {
		return
	}
	v.Book.Lift(t, sign)
	for _, p := range v.pickers {
		p.Changed(n, sign)
	}
}
