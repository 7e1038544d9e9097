// Package book keeps, beside an immutable snapshot, what decisions ask of it again and again: the tasks by slot, what is on
// each node, which services have changed since they were last looked at.
//
// It owns these figures and how they follow from one snapshot to the next by what has changed, so that the work of a
// decision grows with the change and not with the cluster. It decides nothing. A Book belongs to one goroutine.
package book

import (
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// Book is the index of one snapshot.
type Book struct {
	Snapshot *state.Snapshot
	// Nodes are in the order of ids.
	Nodes []*place.Node
	// Groups are the services and the tasks of each, also of services that are gone, in the order of ids.
	Groups []*Group
	// Placement counts the changes of anything that placement rests on.
	Placement uint64
	// Decision is the number of the decision under way, from 1.
	Decision uint64
	// Blockless are the nodes that have no block of the machine network.
	Blockless map[string]struct{}
	// Wishes are the nodes with a taint that only asks to be avoided, Holding those that are held off for a time.
	Wishes, Holding map[string]struct{}
	// Ready are the nodes whose machine is heard.
	Ready map[string]struct{}
	// Fresh are the nodes that have changed since somebody took them out.
	Fresh map[string]struct{}
	Pools *Pools

	// perNode are the services that have one task on each node, scaled those that scale by what is counted.
	perNode, scaled map[*Group]struct{}

	agenda  *agenda
	ladders ladders
	// numbered counts how often the order of ids among nodes was numbered anew. Seats is how many numbers were ever given to nodes
	// to keep, spare are those of nodes that have gone.
	numbered uint64
	seats    int
	spare    []int
	nodes    map[string]*place.Node
	groups   map[string]*Group
	tasks    map[string]*typesv1.Task
	made     []made // by the decision under way, and not in tasks yet
	volumes  map[string]*typesv1.Volume
	users    map[VolumeUse]map[string]*typesv1.Task
	// awaiting are the tasks that have no node and hold something on one.
	awaiting map[string]struct{}
}

// New is a book of nothing.
func New() *Book { return new(Book).reset() }

func (b *Book) reset() *Book {
	*b = Book{Snapshot: state.Empty(), Placement: b.Placement + 1, Decision: b.Decision, Wishes: map[string]struct{}{}, Ready: map[string]struct{}{}, Holding: map[string]struct{}{}, Blockless: map[string]struct{}{}, Fresh: map[string]struct{}{}, Pools: newPools(),
		perNode: map[*Group]struct{}{}, scaled: map[*Group]struct{}{}, agenda: newAgenda(),
		nodes: map[string]*place.Node{}, groups: map[string]*Group{}, tasks: map[string]*typesv1.Task{}, volumes: map[string]*typesv1.Volume{}, users: map[VolumeUse]map[string]*typesv1.Task{}, awaiting: map[string]struct{}{}}
	return b
}

// Advance brings the book to the snapshot: by what has changed since its own when that is known, else from nothing.
func (b *Book) Advance(s *state.Snapshot) {
	b.tidyLadders()
	if keys, ok := s.ChangedSince(b.Snapshot.Version()); ok && !b.Snapshot.Version().IsZero() {
		b.Snapshot = s
		// Tasks go first: a node that comes back takes over what its tasks are by now.
		for _, tasks := range []bool{true, false} {
			for _, key := range keys {
				if (key.Kind == typesv1.Kind_KIND_TASK) == tasks {
					b.follow(key, s.Get(key))
				}
			}
		}
		return
	}
	b.reset()
	b.Snapshot = s
	b.expect(s.Count(typesv1.Kind_KIND_NODE), s.Count(typesv1.Kind_KIND_SERVICE), s.Count(typesv1.Kind_KIND_TASK))
	for n := range s.Nodes() {
		b.SetNode(n.GetMeta().GetId(), n)
	}
	for n := range s.Networks() {
		b.Pools.SetNetwork(n.GetMeta().GetId(), n)
	}
	for vol := range s.Volumes() {
		b.SetVolume(vol.GetMeta().GetId(), vol)
	}
	for svc := range s.Services() {
		b.setService(svc.GetMeta().GetId(), svc)
	}
	for t := range s.Tasks() {
		b.SetTask(t.GetMeta().GetId(), t)
	}
}

// expect makes room for so many objects.
func (b *Book) expect(nodes, services, tasks int) {
	b.Nodes, b.nodes = make([]*place.Node, 0, nodes), make(map[string]*place.Node, nodes)
	b.Fresh, b.Ready = make(map[string]struct{}, nodes), make(map[string]struct{}, nodes)
	b.Groups, b.groups = make([]*Group, 0, services), make(map[string]*Group, services)
	b.tasks = make(map[string]*typesv1.Task, tasks)
}

func (b *Book) follow(key state.Key, o *typesv1.Object) {
	switch key.Kind {
	case typesv1.Kind_KIND_TASK:
		b.SetTask(key.ID, o.GetTask())
	case typesv1.Kind_KIND_NODE:
		b.SetNode(key.ID, o.GetNode())
	case typesv1.Kind_KIND_SERVICE:
		b.setService(key.ID, o.GetService())
		b.Placement++ // affinities ask for its labels, others wait for it or for its tasks to make room
	case typesv1.Kind_KIND_CLUSTER, typesv1.Kind_KIND_NETWORK: // settings of all, and addresses
		if key.Kind == typesv1.Kind_KIND_NETWORK && b.setNetwork(key.ID, o.GetNetwork()) {
			return
		}
		b.Placement++
		for _, g := range b.Groups {
			g.setService(g.Service)
		}
	case typesv1.Kind_KIND_VOLUME:
		b.followVolume(key.ID, o.GetVolume())
	case typesv1.Kind_KIND_LOAD:
		for g := range b.scaled {
			b.agenda.stir(g)
		}
	default:
	}
}

// Node is nil when it is not in the cluster.
func (b *Book) Node(id string) *place.Node { return b.nodes[id] }

// Task is nil when it is not there.
func (b *Book) Task(id string) *typesv1.Task {
	t, ok := b.tasks[id]
	if ok || len(b.made) == 0 {
		return t
	}
	for _, m := range b.made {
		b.tasks[m.task.GetMeta().GetId()] = m.task
	}
	b.made = b.made[:0]
	return b.tasks[id]
}

// SetNode takes over a node's new state, or forgets it (nil).
func (b *Book) SetNode(id string, n *typesv1.Node) {
	b.Placement++
	info := b.nodes[id]
	if n == nil {
		b.dropNode(id, info)
		return
	}
	b.Fresh[id] = struct{}{}
	note(b.Wishes, id, place.Avoided(n))
	note(b.Holding, id, n.GetFlaps().GetHoldUntil() != nil)
	note(b.Blockless, id, len(n.GetBlocks()) == 0)
	b.noteReady(id, n.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_READY)
	if info != nil {
		info.Update(n)
		b.noteMoved(info)
	} else {
		info = place.NewNode(n)
		info.Seat = b.seat()
		b.nodes[id] = info
		at := b.nodeAt(id)
		b.Nodes = slices.Insert(b.Nodes, at, info)
		b.number(at)
		for t := range b.Snapshot.TasksOfNode(id) { // of a node that was gone and is back
			if t = b.tasks[t.GetMeta().GetId()]; t.GetDecided().GetNodeId() == id {
				b.Group(t.GetServiceId()).account(info, t, 1)
			}
		}
		for task := range b.awaiting {
			if t := b.Task(task); t.GetDecided().GetAwaitedNodeId() == id {
				b.Group(t.GetServiceId()).account(info, t, 1)
			}
		}
		b.noteMoved(info)
	}
	info.Changed = b.Placement
	b.wakeNode(id)
}

func (b *Book) dropNode(id string, info *place.Node) {
	b.noteReady(id, false)
	for _, set := range []map[string]struct{}{b.Blockless, b.Fresh, b.Wishes, b.Holding} {
		delete(set, id)
	}
	if info == nil {
		return
	}
	b.wakeNode(id)
	delete(b.nodes, id)
	b.dropFromLadders(info)
	b.spare, info.Seat = append(b.spare, info.Seat), nowhere
	for _, g := range b.Groups {
		g.tallied(g.OnNode[info], -1)
		delete(g.OnNode, info)
	}
	at := b.nodeAt(id)
	b.Nodes = slices.Delete(b.Nodes, at, at+1)
	b.number(at)
}

func note[K comparable](set map[K]struct{}, id K, in bool) {
	if in {
		set[id] = struct{}{}
	} else {
		delete(set, id)
	}
}

// noteReady has those asked again that scale by what all machines count.
func (b *Book) noteReady(id string, is bool) {
	if _, was := b.Ready[id]; was == is {
		return
	}
	note(b.Ready, id, is)
	for g := range b.scaled {
		if g.Service.GetSpec().GetAutoscale().GetConnections() > 0 {
			b.agenda.stir(g)
		}
	}
}

func (b *Book) nodeAt(id string) int {
	at, _ := slices.BinarySearchFunc(b.Nodes, id, func(n *place.Node, id string) int { return strings.Compare(n.ID(), id) })
	return at
}

// nowhere is the seat of a node that has gone.
const nowhere = -1

// seat is a number that no node has.
func (b *Book) seat() int {
	if last := len(b.spare) - 1; last >= 0 {
		s := b.spare[last]
		b.spare = b.spare[:last]
		return s
	}
	b.seats++
	return b.seats - 1
}

func (b *Book) number(from int) {
	if from < len(b.Nodes) {
		b.numbered++
	}
	for i, n := range b.Nodes[from:] {
		n.Ord = from + i
	}
}

// wakeNode lets the slots that have something on the node, and the services that have one task a node, be looked at again.
func (b *Book) wakeNode(id string) {
	for t := range b.Snapshot.TasksOfNode(id) {
		g := b.Group(t.GetServiceId())
		b.agenda.stir(g)
		if s := g.Slot(KeyOf(t)); s != nil {
			s.Calm = false
		}
	}
	for g := range b.perNode {
		b.agenda.stir(g)
	}
}

// setService takes over a service's new state, or forgets it (nil). What its tasks hold is noted anew under another priority.
func (b *Book) setService(id string, svc *typesv1.Service) {
	g, priority := b.Group(id), svc.GetSpec().GetPriority()
	if svc == nil {
		priority = nobody
	}
	g.setService(svc)
	note(b.perNode, g, g.PerNode())
	note(b.scaled, g, svc.GetSpec().GetAutoscale() != nil)
	if priority == g.priority {
		return
	}
	for _, sign := range []int{-1, 1} {
		for _, s := range g.Slots {
			for _, t := range s.Tasks {
				g.account(b.nodes[NodeOf(t)], t, sign)
			}
		}
		g.priority = priority
	}
}

// Group is the tasks of a service; it is made when it is not there.
func (b *Book) Group(service string) *Group {
	g := b.groups[service]
	if g == nil {
		g = newGroup(service, b.agenda)
		b.groups[service] = g
		at, _ := slices.BinarySearchFunc(b.Groups, service, func(g *Group, id string) int { return strings.Compare(g.ID, id) })
		b.Groups = slices.Insert(b.Groups, at, g)
	}
	return g
}

// Tidy forgets the groups that have neither a service nor tasks.
func (b *Book) Tidy() {
	empty := func(g *Group) bool { return g.Service == nil && len(g.Slots) == 0 }
	may := b.agenda.empty
	b.agenda.empty = nil
	if !slices.ContainsFunc(may, empty) {
		return
	}
	b.Groups = slices.DeleteFunc(b.Groups, func(g *Group) bool {
		if !empty(g) {
			return false
		}
		delete(b.groups, g.ID)
		b.agenda.drop(g)
		return true
	})
}

// SetTask takes over a task's new state, or forgets it (nil).
func (b *Book) SetTask(id string, t *typesv1.Task) {
	was := b.Task(id)
	if was == t {
		return
	}
	if was == nil {
		b.tasks[id] = t
		b.add(made{t, b.Group(t.GetServiceId()), b.nodes[NodeOf(t)]})
		return
	}
	b.Placement++
	g, from := b.Group(was.GetServiceId()), b.nodes[NodeOf(was)]
	b.noteMoved(from)
	note(b.awaiting, id, t.GetDecided().GetAwaitedNodeId() != "")
	b.Pools.forget(was)
	b.noteUsers(was, t)
	g.account(from, was, -1)
	switch {
	case t == nil:
		g.remove(was)
		delete(b.tasks, id)
		return
	case KeyOf(was) == KeyOf(t):
		g.replace(was, t)
	default:
		g.remove(was)
		g.insert(t)
	}
	to := from
	if NodeOf(t) != NodeOf(was) {
		to = b.nodes[NodeOf(t)]
		b.noteMoved(to)
	}
	b.tasks[id] = t
	g.account(to, t, 1)
	b.Pools.note(t)
}

// made is a task with its service, and the node on which it holds something, nil if none.
type made struct {
	task  *typesv1.Task
	group *Group
	node  *place.Node
}

// MakeTask takes in a task that a decision makes. Most of these are never asked for by their ids before they are taken back.
func (b *Book) MakeTask(t *typesv1.Task, g *Group, n *place.Node) {
	m := made{t, g, n}
	b.made = append(b.made, m)
	b.add(m)
}

// UnmakeTask takes back a task that a decision has made, the last one first. Is is what became of it, nil if it is gone.
func (b *Book) UnmakeTask(id string, is *typesv1.Task) {
	last := len(b.made) - 1
	if last < 0 || b.made[last].task != is {
		b.SetTask(id, nil)
		return
	}
	m := b.made[last]
	b.made[last], b.made = made{}, b.made[:last]
	b.Placement++
	b.noteMoved(m.node)
	delete(b.awaiting, id)
	b.Pools.forget(is)
	b.noteUsers(is, nil)
	m.group.account(m.node, is, -1)
	m.group.remove(is)
}

func (b *Book) add(m made) {
	b.Placement++
	b.noteMoved(m.node)
	b.noteUsers(nil, m.task)
	if m.task.GetDecided().GetAwaitedNodeId() != "" {
		b.awaiting[m.task.GetMeta().GetId()] = struct{}{}
	}
	m.group.insert(m.task)
	m.group.account(m.node, m.task, 1)
	b.Pools.note(m.task)
}

// Lift takes away what a task holds on its node, so that others are looked at without it, or (sign 1) lays it down again.
func (b *Book) Lift(t *typesv1.Task, sign int) {
	n := b.nodes[NodeOf(t)]
	b.noteMoved(n)
	b.Group(t.GetServiceId()).account(n, t, sign)
}
