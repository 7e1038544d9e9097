package decide

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

const (
	// flapQuiet is the time without a loss after which a machine counts as steady again.
	flapQuiet = 10 * time.Minute
	// steadyLosses may follow each other before a machine is held off; then it is for holdFirst, and twice as long each time.
	steadyLosses = 2
	holdFirst    = 30 * time.Second
	holdMost     = 10 * time.Minute
)

// nodes looks at the nodes that have changed: each gets blocks of the machine network, and its losses are counted.
func (w *work) nodes() {
	var blockless []string
	if w.s.Cluster().GetDataPath().GetMachineNetwork() != "" {
		blockless = slices.Sorted(maps.Keys(w.book.Blockless))
	}
	for _, id := range blockless {
		if w.full() || !w.addBlock(w.book.Node(id)) {
			break
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.book.Fresh)) {
		if w.full() {
			return
		}
		if n := w.book.Node(id); n == nil || !w.countLoss(n) {
			delete(w.book.Fresh, id)
		}
	}
}

// countLoss notes that a machine was lost once more. It reports whether there was something to note.
func (w *work) countLoss(n *place.Node) bool {
	since, was := n.Object.GetStatus().GetSince(), n.Object.GetFlaps()
	if !n.Down() || since == nil || was.GetLostAt() != nil && !was.GetLostAt().AsTime().Before(since.AsTime()) {
		return false
	}
	next := proto.CloneOf(n.Object)
	next.Flaps = &typesv1.Flaps{Count: 1, LostAt: since}
	if since.AsTime().Sub(timeOf(was.GetLostAt())) < flapQuiet {
		next.Flaps.Count = was.GetCount() + 1
	}
	if over := int(next.GetFlaps().GetCount()) - steadyLosses; over > 0 {
		hold := min(holdFirst<<min(over-1, 10), holdMost)
		next.Flaps.HoldUntil = timestamppb.New(since.AsTime().Add(hold))
	}
	w.putNode(n.Object, next)
	return true
}

// addBlock claims one more /24 for a node, and its /64 with the first. It reports whether there was one left.
func (w *work) addBlock(n *place.Node) bool {
	data := w.s.Cluster().GetDataPath()
	block, ok := w.addresses.Block(data.GetMachineNetwork(), 24)
	if !ok {
		return false
	}
	next := proto.CloneOf(n.Object)
	next.Blocks = append(next.Blocks, block)
	if len(n.Object.GetBlocks()) == 0 {
		if block6, ok := w.addresses.Block(data.GetMachineNetwork6(), 64); ok {
			next.Blocks = append(next.Blocks, block6)
		}
	}
	w.putNode(n.Object, next) // nobody else writes blocks, and a clash is a claim's: nothing to rest on
	return true
}

// tables is the lowest revision that the tables of the machines in session hold, as far as their dispatchers tell.
func (w *work) tables() uint64 {
	if w.applied != nil {
		return *w.applied
	}
	least, seen := ^uint64(0), map[string]struct{}{}
	for _, n := range w.book.Nodes {
		dispatcher := n.Object.GetStatus().GetSession().GetDispatcherId()
		if n.Object.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_READY && dispatcher != "" {
			seen[dispatcher] = struct{}{}
		}
	}
	for d := range seen {
		least = min(least, w.s.Member("dispatcher/"+d).GetAppliedRevision())
	}
	w.applied = &least
	return least
}

// tooSmall reports whether a node's resources no longer suffice for a task: reservations are added up from the oldest task
// on, and those beyond what the machine has must go.
func (w *work) tooSmall(n *place.Node, t *typesv1.Task) bool {
	if n.Used.CPUs <= n.Have.CPUs && n.Used.Memory <= n.Have.Memory || t.GetDecided().GetReserved() == nil {
		return false
	}
	id := n.ID()
	if w.small == nil {
		w.small = map[string]map[string]bool{}
	}
	if w.small[id] == nil {
		w.small[id] = map[string]bool{}
		var tasks []*typesv1.Task
		for x := range w.s.TasksOfNode(id) {
			if !dead(x) && x.GetDecided().GetReserved() != nil {
				tasks = append(tasks, x)
			}
		}
		slices.SortStableFunc(tasks, func(a, b *typesv1.Task) int {
			return cmp.Or(count(book.Wanted(a))-count(book.Wanted(b)), created(a).Compare(created(b)))
		})
		var cpus, memory int64
		for _, x := range tasks { // what is stopping already goes first, so that it counts
			r := x.GetDecided().GetReserved()
			if cpus+r.GetNanoCpus() > n.Have.CPUs || memory+r.GetMemoryBytes() > n.Have.Memory {
				w.small[id][x.GetMeta().GetId()] = book.Wanted(x)
				continue
			}
			cpus, memory = cpus+r.GetNanoCpus(), memory+r.GetMemoryBytes()
		}
	}
	return w.small[id][t.GetMeta().GetId()]
}

// defaultFlapWindow is how long the tasks of a lost node are kept when the cluster does not say.
const defaultFlapWindow = time.Minute

// machineAddress finds an address for eth0 on a node, which gets a further block when its blocks are full. A cluster
// without a machine network gives none, and that is well.
func (w *work) machineAddress(n *place.Node) (*typesv1.TaskAddress, bool) {
	if w.s.Cluster().GetDataPath().GetMachineNetwork() == "" {
		return nil, true
	}
	if ta := w.addresses.Machine(n.Object.GetBlocks()); ta != nil {
		return ta, true
	}
	if !w.addBlock(n) {
		return nil, false
	}
	ta := w.addresses.Machine(n.Object.GetBlocks())
	return ta, ta != nil
}

// flapWindow is how long the tasks of a lost node are kept to be taken back.
func (w *work) flapWindow() time.Duration {
	if d := w.s.Cluster().GetSpec().GetScheduling().GetFlapWindow(); d != nil {
		return d.AsDuration()
	}
	return defaultFlapWindow
}

// holds are the nodes that get no new tasks for a time.
func (w *work) holds() []*place.Node {
	if !w.heldKnown {
		w.heldKnown = true
		for id := range w.book.Holding {
			if n := w.book.Node(id); n.Hold.After(w.now) {
				w.held = append(w.held, n)
			}
		}
	}
	return w.held
}
