// Package preempt says who goes first, and who makes room for whom: which tasks of a lower priority leave a node so that one
// of a higher priority fits there.
//
// It owns the choice of the node and of the victims; it displaces nobody itself. It is pure: what it tries on a node it takes
// back.
package preempt

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

// Displaced begins the reason of a task that made room. The words are how a later decision knows that it did not end by
// itself.
const Displaced = "displaced by "

// named is the number of tasks that a reason names.
const named = 3

// PriorityOf is the class of a service's tasks. Those of a service that is gone are on their way out.
func PriorityOf(g *book.Group) int32 { return g.Service.GetSpec().GetPriority() }

// Rank is the order in which services are looked at: a higher class first; among equals those whose tasks have one node alone to
// go to, for others may go elsewhere; then the order of ids, in which they are given.
func Rank(groups []*book.Group) []*book.Group {
	if !slices.ContainsFunc(groups, func(g *book.Group) bool { return PriorityOf(g) != 0 || g.PerNode() }) {
		return groups
	}
	ranked := slices.Clone(groups)
	slices.SortStableFunc(ranked, func(a, b *book.Group) int {
		return cmp.Or(cmp.Compare(PriorityOf(b), PriorityOf(a)), cmp.Compare(places(a), places(b)))
	})
	return ranked
}

// places is 0 where each task has its own node, else 1.
func places(g *book.Group) int {
	if g.PerNode() {
		return 0
	}
	return 1
}

// Room is a place on a node once others are gone.
type Room struct {
	Node *place.Node
	// Victims are to be displaced, Leaving are stopping already.
	Victims, Leaving []*typesv1.Task
	// Reserved is what the task will hold there.
	Reserved *typesv1.Resources
}

// Free reports whether nobody has to stop first: no victim has been there for longer than this decision.
func (r Room) Free(settled func(t *typesv1.Task) bool) bool {
	return len(r.Leaving) == 0 && !slices.ContainsFunc(r.Victims, settled)
}

// Waits is the reason of the task that is to have the place.
func (r Room) Waits(service func(id string) *typesv1.Service) string {
	var names []string
	tasks := r.Victims
	if len(tasks) == 0 {
		tasks = r.Leaving
	}
	for _, t := range tasks {
		names = append(names, state.TaskName(service(t.GetServiceId()), t))
	}
	slices.Sort(names)
	more := ""
	if len(names) > named {
		more, names = fmt.Sprintf(" and %d more", len(names)-named), names[:named]
	}
	return "waits for the place of " + strings.Join(names, ", ") + more
}

// Ask is a task that has found no place.
type Ask struct {
	Request *place.Request
	// Own is its service, Group any other by id.
	Own   *book.Group
	Group func(id string) *book.Group
	// Lost reports whether a task's node is lost.
	Lost func(t *typesv1.Task) bool
	// Tasks are those on a node.
	Tasks func(n *place.Node) []*typesv1.Task

	spare map[*book.Group]int
}

// Find is the best of the nodes, in their order, on which the task would fit once others are gone: where the victims' highest
// class is lowest, then where they are fewest, then where they are newest.
func (a *Ask) Find(nodes []*place.Node) (best Room, ok bool) {
	for _, n := range nodes {
		if room, fits := a.on(n); fits && (!ok || a.better(room, best)) {
			best, ok = room, true
		}
	}
	if ok {
		a.without(best.Node, slices.Concat(best.Leaving, best.Victims), func() { best.Reserved = a.Request.Reserved(best.Node) })
	}
	return best, ok
}

// Clears reports whether the task fits on the node once all that is stopping there is gone.
func (a *Ask) Clears(n *place.Node) (fits bool) {
	var leaving []*typesv1.Task
	for _, t := range a.Tasks(n) {
		if (!book.Wanted(t) || a.Group(t.GetServiceId()).Service == nil) && !task.Dead(t) {
			leaving = append(leaving, t)
		}
	}
	a.without(n, leaving, func() { fits = a.fits(n) })
	return fits
}

func (a *Ask) fits(n *place.Node) bool { return a.Request.Fits(n, a.Own.OnNode[n]) == place.None }

// without calls f while what tasks hold on the node is taken away.
func (a *Ask) without(n *place.Node, tasks []*typesv1.Task, f func()) {
	for _, t := range tasks {
		lift(n, t, -1)
	}
	f()
	for _, t := range tasks {
		lift(n, t, 1)
	}
}

func lift(n *place.Node, t *typesv1.Task, sign int) {
	n.Reserve(t.GetDecided().GetReserved(), int64(sign))
	n.Occupy(t.GetDecided().GetHostPorts(), sign)
}

// on is who has to leave one node. A place that becomes free anyway is taken first; then all of the lowest class, and of the
// next, until there is room; and of these everybody stays who can.
func (a *Ask) on(n *place.Node) (room Room, ok bool) {
	if c := a.Request.Fits(n, a.Own.OnNode[n]); c < place.CPUs || c > place.HostPort {
		return room, false // that others go would not help
	}
	leaving, lower := a.sort(n)
	room = Room{Node: n, Leaving: leaving}
	a.without(n, leaving, func() {
		taken := 0
		for !ok && taken <= len(lower) {
			if ok = a.fits(n); ok || taken == len(lower) {
				break
			}
			class := a.class(lower[taken])
			for ; taken < len(lower) && a.class(lower[taken]) == class; taken++ {
				lift(n, lower[taken], -1)
			}
		}
		gone := lower[:taken]
		if ok {
			room.Victims = a.spared(n, gone)
			gone = room.Victims
		}
		for _, t := range gone {
			lift(n, t, 1)
		}
	})
	return room, ok
}

// sort finds the tasks on a node that are stopping, and those that may be displaced: the lowest class first, and the newest
// first within one. A service that states how many may be missing gives no more than that.
func (a *Ask) sort(n *place.Node) (leaving, lower []*typesv1.Task) {
	for _, t := range a.Tasks(n) {
		g := a.Group(t.GetServiceId())
		switch below := PriorityOf(g) < PriorityOf(a.Own); {
		case task.Dead(t):
		case g.Service == nil, !book.Wanted(t) && (below || g == a.Own):
			leaving = append(leaving, t)
		case !book.Wanted(t):
		case below:
			lower = append(lower, t)
		}
	}
	slices.SortFunc(lower, func(x, y *typesv1.Task) int {
		return cmp.Or(cmp.Compare(a.class(x), a.class(y)), task.Created(y).Compare(task.Created(x)), cmp.Compare(y.GetMeta().GetId(), x.GetMeta().GetId()))
	})
	given := map[*book.Group]int{}
	return leaving, slices.DeleteFunc(lower, func(t *typesv1.Task) bool {
		g := a.Group(t.GetServiceId())
		given[g]++
		return given[g] > a.spareOf(g)
	})
}

func (a *Ask) class(t *typesv1.Task) int32 { return PriorityOf(a.Group(t.GetServiceId())) }

// spared lays down again whoever may stay of those that were taken away, and returns the others. If one alone makes room it is
// only that one; else the highest class stays first, within it what holds least of what is asked for, then the oldest.
func (a *Ask) spared(n *place.Node, gone []*typesv1.Task) (victims []*typesv1.Task) {
	if len(gone) == 0 {
		return nil
	}
	top := a.class(gone[len(gone)-1])
	for _, t := range gone {
		lift(n, t, 1)
	}
	for _, t := range gone {
		lift(n, t, -1)
		if a.class(t) == top && a.fits(n) {
			return []*typesv1.Task{t}
		}
		lift(n, t, 1)
	}
	for _, t := range gone {
		lift(n, t, -1)
	}
	back := slices.Clone(gone)
	slices.SortStableFunc(back, func(x, y *typesv1.Task) int {
		return cmp.Or(cmp.Compare(a.class(y), a.class(x)), cmp.Compare(a.weight(x), a.weight(y)), task.Created(x).Compare(task.Created(y)))
	})
	for _, t := range back {
		if lift(n, t, 1); !a.fits(n) {
			lift(n, t, -1)
			victims = append(victims, t)
		}
	}
	return victims
}

// weight is what a task holds of what is asked for, the larger share, in thousandths.
func (a *Ask) weight(t *typesv1.Task) int64 {
	share := func(held, need int64) int64 {
		if need <= 0 {
			return 0
		}
		return int64(float64(held) / float64(need) * 1000)
	}
	r, need := t.GetDecided().GetReserved(), a.Request.Need
	return max(share(r.GetNanoCpus(), need.GetNanoCpus()), share(r.GetMemoryBytes(), need.GetMemoryBytes()))
}

// spareOf is how many tasks of a service may still be taken: of one that states max_unavailable so many that no more are
// missing, of any other all. The default floor, the parallelism of updates, binds what we do of ourselves and not what a person
// has said with a priority.
func (a *Ask) spareOf(g *book.Group) int {
	limit := g.Service.GetSpec().MaxUnavailable
	if limit == nil {
		return math.MaxInt
	}
	spare, known := a.spare[g]
	if !known {
		want, running := state.Replicas(g.Service), 0
		if g.PerNode() {
			want = uint64(len(g.Slots))
		}
		for _, s := range g.Slots {
			if slices.ContainsFunc(s.Tasks, func(t *typesv1.Task) bool { return task.Wanted(t) && task.Runs(t) && !a.Lost(t) }) {
				running++
			}
		}
		spare = int(min(*limit, 1<<30)) - max(int(min(want, 1<<30))-running, 0)
		if a.spare == nil {
			a.spare = map[*book.Group]int{}
		}
		a.spare[g] = spare
	}
	return spare
}

// better compares what two rooms cost.
func (a *Ask) better(x, y Room) bool {
	if len(x.Victims) == 0 || len(y.Victims) == 0 {
		return len(x.Victims) < len(y.Victims)
	}
	return cmp.Or(cmp.Compare(a.top(x.Victims), a.top(y.Victims)), cmp.Compare(len(x.Victims), len(y.Victims)),
		oldest(y.Victims).Compare(oldest(x.Victims))) < 0
}

// top is the highest class among tasks.
func (a *Ask) top(tasks []*typesv1.Task) int32 {
	return a.class(slices.MaxFunc(tasks, func(x, y *typesv1.Task) int { return cmp.Compare(a.class(x), a.class(y)) }))
}

func oldest(tasks []*typesv1.Task) (at time.Time) {
	for i, t := range tasks {
		if c := task.Created(t); i == 0 || c.Before(at) {
			at = c
		}
	}
	return at
}
