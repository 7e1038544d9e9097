package rollout

import (
	"cmp"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/version"
)

// Dirty reports whether a task is not of the spec that the service's tasks should be of. Another version is clean when it
// has the same hash, or differs only in where tasks may run: whether it may stay where it is is another question. One that is
// nowhere yet must be of the version itself, for it is placed by that.
func (r *Rollout) Dirty(t *typesv1.Task) bool {
	of := t.GetSpecVersion()
	if of == r.Target {
		return false
	}
	if t.GetDecided().GetNodeId() == "" {
		return !version.Equal(r.Service, of, r.Target)
	}
	d, known := r.dirtyVersions[of]
	if !known {
		d = !version.Same(r.Service, of, r.Target)
		if r.dirtyVersions == nil {
			r.dirtyVersions = map[uint64]bool{}
		}
		r.dirtyVersions[of] = d
	}
	return d
}

// Outdated reports whether a task is to be made anew as soon as nothing is lost by it: it must not be placed before.
func (r *Rollout) Outdated(t *typesv1.Task) bool {
	return !state.IsJob(r.Service) && !r.paused() && r.Dirty(t)
}

// newPorts is the reason of a task that leaves because the service asks for other ports: an update, though not of its spec.
const newPorts = "replaced: its host ports have changed"

// Misplaced says why a task may not stay on its node; nothing if it may.
func (r *Rollout) Misplaced(t *typesv1.Task) string {
	n := r.Book.Node(t.GetDecided().GetNodeId())
	req := r.Request(r.VersionFor(t)) // of what would follow it: or it would be moved for ever
	switch {
	case n == nil || n.Down() || task.Dead(t):
		return ""
	case n.Active() && !req.HasPorts(t.GetDecided().GetHostPorts()):
		return newPorts
	case r.Group.PerNode():
		return ""
	case n.Drains():
		return "moved: node " + n.Name() + " is drained"
	case !n.Active():
		return "" // rules are enforced only where tasks could be placed
	case req.MayStay(n) != place.None:
		return "moved: node " + n.Name() + " " + req.Unmet(n)
	case r.TooSmall(n, t):
		return "moved: node " + n.Name() + " has become too small"
	}
	return ""
}

// move is one slot with what is to leave it.
type move struct {
	slot    *book.Slot
	leaving []*typesv1.Task // wanted, but of an older spec or on the wrong node
	staying *typesv1.Task   // the other
	why     string          // the leaving are on the wrong node
	dirty   bool            // some are of an older spec
	begun   bool            // it is under way to what must leave as well
}

func (r *Rollout) moveOf(s *book.Slot) move {
	m := move{slot: s}
	if r.Group.PerNode() && !r.Stays(s) {
		return m // what is there may stay, but nothing new may come
	}
	from := r.handsOver(s)
	for _, t := range s.Tasks {
		if !task.Wanted(t) || r.Group.PerNode() && r.Lost(t) { // who cannot be reached cannot be replaced there
			continue
		}
		dirty, why := r.Dirty(t) && !r.paused(), r.Misplaced(t) // while it is paused every version may stay
		if !dirty && why == "" && t.GetMeta().GetId() == from {
			why = evened
		}
		if (dirty || why != "") && r.Lost(t) {
			continue // it is given up as soon as somebody else can take it
		}
		if dirty || why != "" {
			m.leaving = append(m.leaving, t)
			m.dirty, m.why = m.dirty || dirty, cmp.Or(m.why, why)
			continue
		}
		m.keep(t)
	}
	return m
}

// keep lets a task stay. Two of one kind are left when what one of them was to leave for is no more: the one that runs stays,
// else the older.
func (m *move) keep(t *typesv1.Task) {
	extra := t
	if m.staying == nil || task.Runs(t) && !task.Runs(m.staying) {
		m.staying, extra = t, m.staying
	}
	if extra != nil {
		m.leaving = append(m.leaving, extra)
		m.why = cmp.Or(m.why, "one too many in its slot")
	}
}

// BelongsOn reports whether a node should have a task of the service: it takes tasks and is one of those that the spec
// means. Whether there is room is another question: if not, the task waits.
func (r *Rollout) BelongsOn(n *place.Node) bool {
	return n.Active() && r.Request(r.Target).Eligible(n) == place.None
}

// Stays reports whether a slot is to have a task at all.
func (r *Rollout) Stays(s *book.Slot) bool {
	if s.Key.Node == "" {
		return true
	}
	n := r.Book.Node(s.Key.Node)
	return n != nil && r.BelongsOn(n)
}
