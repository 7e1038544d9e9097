package preempt

import (
	"cmp"
	"math"
	"slices"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

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
	// Replicas is how many tasks a replicated service is to have once this decision has looked at it.
	Replicas func(svc *typesv1.Service) uint64

	spare map[*book.Group]int
}

// victim is a task that may be displaced.
type victim struct {
	*typesv1.Task
	class   int32
	created time.Time
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
// next, until there is room; and of these everybody stays who can. A node whose better tasks leave too little is passed over
// without a look at each.
func (a *Ask) on(n *place.Node) (room Room, price cost, ok bool) {
	if c := a.Request.Fits(n, a.Own.OnNode[n]); c < place.CPUs || c > place.HostPort {
		return room, price, false // that others go would not help
	}
	if a.Request.Short(n, n.Firm(a.Own.Priority())) != place.None {
		return room, price, false
	}
	leaving, lower := a.sort(n)
	room = Room{Node: n, Leaving: leaving}
	a.without(n, leaving, func() {
		taken := 0
		for !ok && taken <= len(lower) {
			if ok = a.fits(n); ok || taken == len(lower) {
				break
			}
			class := lower[taken].class
			for ; taken < len(lower) && lower[taken].class == class; taken++ {
				lift(n, lower[taken].Task, -1)
			}
		}
		gone := lower[:taken]
		if ok {
			gone = a.spared(n, gone)
			price = costOf(gone)
			for _, t := range gone {
				room.Victims = append(room.Victims, t.Task)
			}
		}
		for _, t := range gone {
			lift(n, t.Task, 1)
		}
	})
	return room, price, ok
}

// sort finds the tasks on a node that are stopping, and those that may be displaced: the lowest class first, and the newest
// first within one. A service that states how many may be missing gives no more than that.
func (a *Ask) sort(n *place.Node) (leaving []*typesv1.Task, lower []victim) {
	limited := false
	for _, t := range a.Tasks(n) {
		g := a.Group(t.GetServiceId())
		switch below := g.Priority() < a.Own.Priority(); {
		case task.Dead(t):
		case g.Service == nil, !book.Wanted(t) && (below || g == a.Own):
			leaving = append(leaving, t)
		case !book.Wanted(t):
		case below:
			limited = limited || Limited(g)
			lower = append(lower, victim{t, g.Priority(), created(t)})
		}
	}
	slices.SortFunc(lower, func(x, y victim) int {
		if c := cmp.Or(cmp.Compare(x.class, y.class), y.created.Compare(x.created)); c != 0 {
			return c
		}
		return cmp.Compare(y.GetMeta().GetId(), x.GetMeta().GetId())
	})
	if !limited {
		return leaving, lower
	}
	given := map[*book.Group]int{}
	return leaving, slices.DeleteFunc(lower, func(t victim) bool {
		g := a.Group(t.GetServiceId())
		given[g]++
		return given[g] > a.spareOf(g)
	})
}

// created is when a task was made; one of this very decision is newer than all.
func created(t *typesv1.Task) time.Time {
	if task.Fresh(t) {
		return time.Unix(math.MaxInt32, 0)
	}
	return task.Created(t)
}

// Limited reports whether a service states how many of its tasks may be missing.
func Limited(g *book.Group) bool { return g.Service.GetSpec().MaxUnavailable != nil }

// spared lays down again whoever may stay of those that were taken away, and returns the others. If one alone makes room it is
// only that one; else the highest class stays first, within it what holds least of what is asked for, then the oldest.
func (a *Ask) spared(n *place.Node, gone []victim) (victims []victim) {
	if len(gone) == 0 {
		return nil
	}
	top := gone[len(gone)-1].class
	for _, t := range gone {
		lift(n, t.Task, 1)
	}
	for _, t := range gone {
		lift(n, t.Task, -1)
		if t.class == top && a.fits(n) {
			return []victim{t}
		}
		lift(n, t.Task, 1)
	}
	for _, t := range gone {
		lift(n, t.Task, -1)
	}
	back := slices.Clone(gone)
	slices.SortStableFunc(back, func(x, y victim) int {
		return cmp.Or(cmp.Compare(y.class, x.class), cmp.Compare(a.weight(x.Task), a.weight(y.Task)), x.created.Compare(y.created))
	})
	for _, t := range back {
		if lift(n, t.Task, 1); !a.fits(n) {
			lift(n, t.Task, -1)
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
	return max(share(r.GetNanoCpus(), need.GetNanoCpus()), share(r.GetMemoryBytes(), need.GetMemoryBytes()),
		share(r.GetDiskBytes(), need.GetDiskBytes()))
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
		want, running := a.Replicas(g.Service), 0
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
