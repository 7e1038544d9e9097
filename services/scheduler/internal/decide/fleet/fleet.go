// Package fleet is what a decision knows of the machines: which are lost, which are held off, where an address is free.
//
// It owns the rules about machines as such: blocks of the machine network, machines that flap, the mass-loss guard, and who
// must go from one that has become too small. Which tasks a service has is none of its business. A Fleet belongs to one
// decision.
package fleet

import (
	"maps"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/address"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/draft"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/loss"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

// Fleet is the machines within one decision.
type Fleet struct {
	*draft.Draft
	addresses *address.Allocator
	fullNodes []*place.Node // marked as without a free address
	held      []*place.Node // held off, once somebody has asked
	heldKnown bool
	losses    *loss.Guard       // which nodes are lost, once somebody has asked
	applied   *uint64           // see Tables
	lowest    *int32            // priority of a service
	small     map[string]beyond // nodes that have become too small
}

// New looks at the machines of a decision.
func New(d *draft.Draft) *Fleet {
	return &Fleet{Draft: d, addresses: address.New(d.Snapshot(), d.Book.Pools, d.Now)}
}

// Undo takes back what the decision has done to the book.
func (f *Fleet) Undo() {
	f.Draft.Undo()
	for _, n := range f.fullNodes {
		n.Full = false
	}
}

// Nodes looks at the nodes that have changed: each gets blocks of the machine network, and its losses are counted.
func (f *Fleet) Nodes() {
	var blockless []string
	if f.Snapshot().Cluster().GetDataPath().GetMachineNetwork() != "" {
		blockless = slices.Sorted(maps.Keys(f.Book.Blockless))
	}
	for _, id := range blockless {
		if f.Full() || !f.addBlock(f.Book.Node(id)) {
			break
		}
	}
	for _, id := range slices.Sorted(maps.Keys(f.Book.Fresh)) {
		if f.Full() {
			return
		}
		if n := f.Book.Node(id); n == nil || !f.countLoss(n) {
			delete(f.Book.Fresh, id)
		}
	}
}

const (
	// flapQuiet is the time without a loss after which a machine counts as steady again.
	flapQuiet = 10 * time.Minute
	// steadyLosses may follow each other before a machine is held off; then it is for holdFirst, and twice as long each time.
	steadyLosses = 2
	holdFirst    = 30 * time.Second
	holdMost     = 10 * time.Minute
)

// countLoss notes that a machine was lost once more. It reports whether there was something to note.
func (f *Fleet) countLoss(n *place.Node) bool {
	since, was := n.Object.GetStatus().GetSince(), n.Object.GetFlaps()
	if !n.Down() || since == nil || was.GetLostAt() != nil && !was.GetLostAt().AsTime().Before(since.AsTime()) {
		return false
	}
	next := proto.CloneOf(n.Object)
	next.Flaps = &typesv1.Flaps{Count: 1, LostAt: since}
	if since.AsTime().Sub(task.TimeOf(was.GetLostAt())) < flapQuiet {
		next.Flaps.Count = was.GetCount() + 1
	}
	if over := int(next.GetFlaps().GetCount()) - steadyLosses; over > 0 {
		hold := min(holdFirst<<min(over-1, 10), holdMost)
		next.Flaps.HoldUntil = timestamppb.New(since.AsTime().Add(hold))
	}
	f.PutNode(n.Object, next)
	return true
}

// addBlock claims one more /24 for a node, and its /64 with the first. It reports whether there was one left.
func (f *Fleet) addBlock(n *place.Node) bool {
	data := f.Snapshot().Cluster().GetDataPath()
	block, ok := f.addresses.Block(data.GetMachineNetwork(), 24)
	if !ok {
		return false
	}
	next := proto.CloneOf(n.Object)
	next.Blocks = append(next.Blocks, block)
	if len(n.Object.GetBlocks()) == 0 {
		if block6, ok := f.addresses.Block(data.GetMachineNetwork6(), 64); ok {
			next.Blocks = append(next.Blocks, block6)
		}
	}
	f.PutNode(n.Object, next) // nobody else writes blocks, and a clash is a claim's: nothing to rest on
	return true
}

// Tables is the lowest revision that the tables of the machines in session hold, as far as their dispatchers tell.
func (f *Fleet) Tables() uint64 {
	if f.applied != nil {
		return *f.applied
	}
	least, seen := ^uint64(0), map[string]struct{}{}
	for _, n := range f.Book.Nodes {
		dispatcher := n.Object.GetStatus().GetSession().GetDispatcherId()
		if n.Object.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_READY && dispatcher != "" {
			seen[dispatcher] = struct{}{}
		}
	}
	for d := range seen {
		least = min(least, f.Snapshot().Member("dispatcher/"+d).GetAppliedRevision())
	}
	f.applied = &least
	return least
}

// LowestPriority is that of all services: whose own is no higher has nobody to displace.
func (f *Fleet) LowestPriority() int32 {
	if f.lowest == nil {
		least := int32(math.MaxInt32)
		for _, g := range f.Book.Groups {
			if g.Service != nil {
				least = min(least, g.Priority())
			}
		}
		f.lowest = &least
	}
	return *f.lowest
}

// Lost reports whether a task's node is down or no longer in the cluster.
func (f *Fleet) Lost(t *typesv1.Task) bool {
	id := t.GetDecided().GetNodeId()
	if id == "" {
		return false
	}
	n := f.Book.Node(id)
	return n == nil || n.Down()
}

// Gone reports whether nothing of a task can run any more, or nobody can ever say so.
func (f *Fleet) Gone(t *typesv1.Task) bool {
	id := t.GetDecided().GetNodeId()
	if task.Dead(t) || id == "" || f.Book.Node(id) == nil {
		return true
	}
	after := task.TimeOf(t.GetDecided().GetOrphanAfter())
	return !after.IsZero() && f.Lost(t) && !f.Now.Before(after)
}

// defaultFlapWindow is how long the tasks of a lost node are kept when the cluster does not say.
const defaultFlapWindow = time.Minute

// FlapWindow is how long the tasks of a lost node are kept to be taken back.
func (f *Fleet) FlapWindow() time.Duration {
	if d := f.Snapshot().Cluster().GetSpec().GetScheduling().GetFlapWindow(); d != nil {
		return d.AsDuration()
	}
	return defaultFlapWindow
}

// Guard says until when the tasks of a lost node are not replaced, and why.
func (f *Fleet) Guard(n *place.Node) (until time.Time, why string) {
	if f.losses == nil {
		f.losses = loss.Find(f.Snapshot().Cluster().GetSpec().GetScheduling(), f.Book.Nodes)
	}
	return f.losses.Until(n)
}

// Holds are the nodes that get no new tasks for a time.
func (f *Fleet) Holds() []*place.Node {
	if !f.heldKnown {
		f.heldKnown = true
		for id := range f.Book.Holding {
			if n := f.Book.Node(id); n.Hold.After(f.Now) {
				f.held = append(f.held, n)
			}
		}
	}
	return f.held
}

// machineAddress finds an address for eth0 on a node, which gets a further block when its blocks are full. A cluster
// without a machine network gives none, and that is well.
func (f *Fleet) machineAddress(n *place.Node) (*typesv1.TaskAddress, bool) {
	if f.Snapshot().Cluster().GetDataPath().GetMachineNetwork() == "" {
		return nil, true
	}
	if ta := f.addresses.Machine(n.Object.GetBlocks()); ta != nil {
		return ta, true
	}
	if !f.addBlock(n) {
		return nil, false
	}
	ta := f.addresses.Machine(n.Object.GetBlocks())
	return ta, ta != nil
}

// Addresses finds all addresses that a task of the spec has on the node. Room is false when the node has none of its own left:
// then another is to be asked. Why says that a network has none left, wherever the task goes. Nothing is claimed then.
func (f *Fleet) Addresses(n *place.Node, spec *typesv1.TaskSpec, slot uint64) (out []*typesv1.TaskAddress, room bool, why string) {
	mark := f.addresses.Mark()
	own, room := f.machineAddress(n)
	if !room {
		n.Full = true
		f.fullNodes = append(f.fullNodes, n)
		return nil, false, ""
	}
	out, why = f.addresses.Networks(spec, slot)
	if why != "" {
		f.addresses.Unclaim(mark)
		return nil, true, why
	}
	if own != nil {
		out = slices.Insert(out, 0, own)
	}
	return out, true, ""
}

// TooSmall reports whether a node's resources no longer suffice for a task: reservations are added up from the oldest task
// on, and those beyond what the machine has must go. What is stopping already does not count, nor what this decision has told to
// stop: it makes room.
func (f *Fleet) TooSmall(n *place.Node, t *typesv1.Task) bool {
	r := t.GetDecided().GetReserved()
	if r == nil || n.Used.CPUs <= n.Have.CPUs && n.Used.Memory <= n.Have.Memory && n.Used.Disk <= n.Have.Disk && len(r.GetGeneric()) == 0 {
		return false
	}
	id := n.ID()
	if f.small == nil {
		f.small = map[string]beyond{}
	}
	if f.small[id].tasks == nil || f.small[id].at != f.Book.Placement {
		f.small[id] = beyond{f.beyond(n), f.Book.Placement}
	}
	return f.small[id].tasks[t.GetMeta().GetId()]
}

// beyond are the wanted tasks on a node that it has not enough for, as things were.
type beyond struct {
	tasks map[string]bool
	at    uint64 // of the book's placement
}

func (f *Fleet) beyond(n *place.Node) map[string]bool {
	var tasks []*typesv1.Task
	for x := range f.Snapshot().TasksOfNode(n.ID()) { // nobody comes to a node that is too small
		x = f.Book.Task(x.GetMeta().GetId())
		if x != nil && book.Wanted(x) && !task.Dead(x) && x.GetDecided().GetReserved() != nil {
			tasks = append(tasks, x)
		}
	}
	slices.SortStableFunc(tasks, func(a, b *typesv1.Task) int { return task.Created(a).Compare(task.Created(b)) })
	out, left := map[string]bool{}, place.Left(n)
	for _, x := range tasks {
		if !left.Take(x.GetDecided().GetReserved()) {
			out[x.GetMeta().GetId()] = true
		}
	}
	return out
}
