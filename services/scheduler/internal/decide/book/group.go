package book

import (
	"cmp"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// SlotKey is the lasting identity of one replica: its number, or its node in a service that has one on each; and the run
// that it belongs to, if the service is a job.
type SlotKey struct {
	Iteration uint64
	Number    uint64
	Node      string
}

// KeyOf is the slot of a task.
func KeyOf(t *typesv1.Task) SlotKey {
	d := t.GetDecided()
	return SlotKey{Iteration: d.GetIteration(), Number: d.GetSlot(), Node: d.GetForNode()}
}

func (k SlotKey) compare(o SlotKey) int {
	return cmp.Or(cmp.Compare(k.Iteration, o.Iteration), cmp.Compare(k.Number, o.Number), cmp.Compare(k.Node, o.Node))
}

// Slot is one replica: its tasks, oldest first.
type Slot struct {
	Key   SlotKey
	Tasks []*typesv1.Task
	// Calm says that nothing was to be done in it when it was looked at last, and will not be before Wake unless it changes.
	Calm bool
	Wake time.Time
	// Filled says that it has a task, or is to have none, and nothing has changed in it since that was found out.
	Filled bool
	// Steady says, while it is calm, that its one task runs and is what it should be.
	Steady bool

	one [1]*typesv1.Task // where Tasks lies while it is one, as it mostly is
}

// Now are the tasks as they are now, to walk over while they change. A few cost no memory.
func (s *Slot) Now() []*typesv1.Task { return append(make([]*typesv1.Task, 0, 8), s.Tasks...) }

// Group is a service with its tasks.
type Group struct {
	ID string
	// Service is nil when it was removed.
	Service *typesv1.Service
	// Slots are in order; none is empty but for those that a decision has just made.
	Slots []*Slot
	// OnNode counts the wanted tasks that have not ended.
	OnNode map[*place.Node]int
	// Failed are the tasks that ended by themselves and badly.
	Failed map[string]*typesv1.Task

	// Outcome is how the last look left it; Dirty also says that it has changed since.
	Outcome

	// Filled is the book's Placement when every node was seen to have the task that it should have, of the run FilledRun, by
	// the spec version FilledBy. 0: never, or the slot of a node is gone since.
	Filled, FilledRun, FilledBy uint64

	Rests uint64 // the last decision that rests on it

	agenda        *agenda
	listed, awake int    // places in its queues
	stand         uint64 // number in its row

	requests []request // few: those of the spec versions that are asked for
	tally    []int     // number of nodes that have so many tasks, from 1 on
	priority int32     // under which its tasks are noted on nodes
	spare    []Slot    // not used yet
	small    small
}

// small is where the lists of a service lie that has one replica and one version, in one piece of memory with it.
type small struct {
	slots    [1]*Slot
	requests [1]request
	tally    [4]int
}

// mostSlots bounds the slots that share one piece of memory: who keeps one of them keeps them all.
const mostSlots = 32

type request struct {
	*place.Request
	version uint64
}

// nobody is the priority of the tasks of a service that is gone: whoever wants their place may have it.
const nobody = math.MinInt32

func newGroup(id string, a *agenda) *Group {
	g := &Group{ID: id, OnNode: map[*place.Node]int{}, agenda: a, priority: nobody}
	g.Slots, g.requests, g.tally = g.small.slots[:0], g.small.requests[:0], g.small.tally[:0]
	a.stir(g)
	a.empty = append(a.empty, g)
	return g
}

func (g *Group) setService(svc *typesv1.Service) {
	priority, places := g.Priority(), g.places()
	g.Service, g.requests, g.Filled = svc, g.requests[:0], 0
	if g.Priority() != priority || g.places() != places {
		g.agenda.listed.moved(g)
	}
	g.agenda.stir(g)
	if svc == nil {
		g.agenda.empty = append(g.agenda.empty, g)
	}
	for _, s := range g.Slots {
		s.Calm, s.Steady = false, false
	}
}

// Priority is the class of the service's tasks. Those of a service that is gone are on their way out.
func (g *Group) Priority() int32 { return g.Service.GetSpec().GetPriority() }

// PerNode reports whether it has one task on each node.
func (g *Group) PerNode() bool {
	spec := g.Service.GetSpec()
	return spec.GetGlobal() != nil || spec.GetGlobalJob() != nil
}

// places is 0 where each task has its own node, else 1.
func (g *Group) places() int {
	if g.PerNode() {
		return 0
	}
	return 1
}

// Request is what tasks of a spec version ask of a node.
func (g *Group) Request(version uint64, strategy typesv1.PlacementStrategy) *place.Request {
	for _, r := range g.requests {
		if r.version == version {
			return r.Request
		}
	}
	r := place.NewRequest(state.SpecOf(g.Service, version), g.Service.GetEndpoint().GetPorts(), strategy)
	g.requests = append(g.requests, request{r, version})
	return r
}

func (g *Group) find(k SlotKey) (int, bool) {
	// Slots are numbered without gaps most of the time.
	if i := int(k.Number) - 1; k.Node == "" && i >= 0 && i < len(g.Slots) && g.Slots[i].Key == k {
		return i, true
	}
	return slices.BinarySearchFunc(g.Slots, k, func(s *Slot, k SlotKey) int { return s.Key.compare(k) })
}

// Slot is nil when it is not there.
func (g *Group) Slot(k SlotKey) *Slot {
	if i, ok := g.find(k); ok {
		return g.Slots[i]
	}
	return nil
}

// MakeSlot is the slot of a key, a new one if there is none.
func (g *Group) MakeSlot(k SlotKey) *Slot {
	i, ok := g.find(k)
	if !ok {
		if len(g.spare) == 0 {
			g.spare = make([]Slot, min(max(len(g.Slots), 1), mostSlots))
		}
		s := &g.spare[0]
		g.spare = g.spare[1:]
		s.Key, s.Tasks = k, s.one[:0]
		if g.Slots = slices.Insert(g.Slots, i, s); len(g.Slots) > 1 {
			g.small.slots[0] = nil // they lie elsewhere now
		}
	}
	return g.Slots[i]
}

// insert adds a task to its slot in the order of age. One that a decision has just made has no age and is the newest.
func (g *Group) insert(t *typesv1.Task) {
	s := g.MakeSlot(KeyOf(t))
	at := len(s.Tasks)
	for at > 0 && older(t, s.Tasks[at-1]) {
		at--
	}
	if s.Tasks = slices.Insert(s.Tasks, at, t); len(s.Tasks) > 1 {
		s.one[0] = nil // they lie elsewhere now
	}
	g.touched(s)
}

// replace takes over a task's new state; its slot and its age never change.
func (g *Group) replace(was, t *typesv1.Task) {
	s := g.Slot(KeyOf(t))
	s.Tasks[slices.Index(s.Tasks, was)] = t
	g.touched(s)
}

func (g *Group) remove(t *typesv1.Task) {
	i, ok := g.find(KeyOf(t))
	if !ok {
		return
	}
	s := g.Slots[i]
	s.Tasks = slices.DeleteFunc(s.Tasks, func(x *typesv1.Task) bool { return x == t })
	g.touched(s)
	if len(s.Tasks) == 0 {
		g.Filled = 0
		g.Slots = slices.Delete(g.Slots, i, i+1)
		if g.Service == nil {
			g.agenda.empty = append(g.agenda.empty, g)
		}
	}
}

// Now are the slots as they are now, to walk over while they change. A few cost no memory.
func (g *Group) Now() []*Slot { return append(make([]*Slot, 0, 8), g.Slots...) }

func (g *Group) touched(s *Slot) {
	s.Calm, s.Steady, s.Filled = false, false, false
	g.agenda.stir(g)
}

// older is the order of age: tasks without a creation time, which are just being made, are the newest.
func older(a, b *typesv1.Task) bool {
	x, y := a.GetMeta().GetCreatedAt(), b.GetMeta().GetCreatedAt()
	switch {
	case x == nil || y == nil:
		return x != nil && y == nil
	case compareTimes(x, y) != 0:
		return compareTimes(x, y) < 0
	}
	return a.GetMeta().GetId() < b.GetMeta().GetId()
}

func compareTimes(a, b *timestamppb.Timestamp) int {
	return cmp.Or(cmp.Compare(a.GetSeconds(), b.GetSeconds()), cmp.Compare(a.GetNanos(), b.GetNanos()))
}

// NodeOf is the id of the node on which a task holds something: its own, or the one on which it waits for others to stop.
func NodeOf(t *typesv1.Task) string {
	return cmp.Or(t.GetDecided().GetNodeId(), t.GetDecided().GetAwaitedNodeId())
}

// account adds a task to the figures of its node and its service, or takes it away. A task that has ended weighs nothing;
// one that is stopping still holds what it has reserved.
func (g *Group) account(n *place.Node, t *typesv1.Task, sign int) {
	switch s := t.GetObserved().GetState(); {
	case !state.Terminal(s):
	case s == typesv1.TaskState_TASK_STATE_FAILED || s == typesv1.TaskState_TASK_STATE_REJECTED:
		if sign > 0 {
			if g.Failed == nil {
				g.Failed = map[string]*typesv1.Task{}
			}
			g.Failed[t.GetMeta().GetId()] = t
		} else {
			delete(g.Failed, t.GetMeta().GetId())
		}
		return
	default:
		return
	}
	if n == nil {
		return
	}
	n.Reserve(t.GetDecided().GetReserved(), int64(sign))
	n.Occupy(t.GetDecided().GetHostPorts(), sign)
	if !Wanted(t) {
		n.Leave(t.GetDecided().GetReserved(), int64(sign))
	} else {
		n.Tasks += sign
		n.Keep(g.priority, t.GetDecided().GetReserved(), int64(sign))
		was := g.OnNode[n]
		if was += sign; was == 0 {
			delete(g.OnNode, n)
		} else {
			g.OnNode[n] = was
		}
		g.tallied(was-sign, -1)
		g.tallied(was, 1)
	}
}

func (g *Group) tallied(count, by int) {
	if count <= 0 {
		return
	}
	if count >= len(g.tally) {
		g.tally = append(g.tally, make([]int, count+1-len(g.tally))...)
	}
	g.tally[count] += by
}

// Least is a number of the service's tasks that no node of so many has fewer of.
func (g *Group) Least(nodes int) int {
	if len(g.OnNode) < nodes {
		return 0
	}
	return max(0, slices.IndexFunc(g.tally, func(nodes int) bool { return nodes > 0 }))
}

// Wanted reports whether a task is to be there: desired not beyond RUNNING.
func Wanted(t *typesv1.Task) bool {
	return t.GetDecided().GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING
}
