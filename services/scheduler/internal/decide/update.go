package decide

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// tablePatience bounds the wait until the machines' tables have a new task, as the agent bounds the other half.
const tablePatience = 5 * time.Second

// dirty reports whether a task is not of the service's current spec. Another version with an equal hash is clean.
func (w *work) dirty(svc *typesv1.Service, t *typesv1.Task) bool {
	if t.GetSpecVersion() == svc.GetSpecVersion() {
		return false
	}
	for _, r := range svc.GetSpecHistory() {
		if r.GetVersion() == t.GetSpecVersion() {
			return len(r.GetHash()) == 0 || !bytes.Equal(r.GetHash(), svc.GetSpecHash())
		}
	}
	return true
}

// rollout is how far the update is in one slot.
type rollout struct {
	slot  *slot
	old   []*typesv1.Task // wanted, of an older spec
	fresh *typesv1.Task   // the newest wanted of the current spec
}

func (w *work) rolloutOf(svc *typesv1.Service, s *slot) rollout {
	r := rollout{slot: s}
	for _, t := range s.wantedTasks() {
		if w.dirty(svc, t) {
			r.old = append(r.old, t)
		} else {
			r.fresh = t
		}
	}
	return r
}

// update replaces the tasks of older specs, as many slots at a time as the spec allows. It keeps no list of what it has
// begun: a slot with a new task that does not run yet is under way.
func (w *work) update(svc *typesv1.Service, g *group) {
	var todo []rollout
	busy := 0
	for _, s := range g.runnable() {
		if w.full() {
			return
		}
		r := w.rolloutOf(svc, s)
		if len(r.old) > 0 && r.fresh != nil {
			w.retire(svc, &r)
		}
		switch {
		case r.fresh == nil:
			todo = append(todo, r)
		case w.underWay(svc, r):
			busy++
		}
	}
	// Slots in which nothing runs go first: nobody loses anything by it.
	slices.SortStableFunc(todo, func(a, b rollout) int { return cmp.Compare(1-w.idle(a.slot), 1-w.idle(b.slot)) })
	limit := 1
	if c := svc.GetSpec().GetUpdate(); c != nil && c.Parallelism != nil {
		limit = int(min(c.GetParallelism(), 1<<30))
	}
	for _, r := range todo {
		if w.full() || limit > 0 && busy >= limit && !pendingOnly(r.old) {
			break
		}
		w.renew(svc, r)
		busy++
	}
	w.setStatus(svc, g)
}

// pendingOnly reports whether none of the tasks has a node: a replacement takes nothing away.
func pendingOnly(tasks []*typesv1.Task) bool {
	return !slices.ContainsFunc(tasks, func(t *typesv1.Task) bool { return t.GetDecided().GetNodeId() != "" })
}

// underWay reports whether a slot's new task keeps a place in the update's parallelism.
func (w *work) underWay(svc *typesv1.Service, r rollout) bool {
	others := slices.ContainsFunc(r.slot.tasks, func(t *typesv1.Task) bool { return w.dirty(svc, t) })
	switch {
	case len(r.old) > 0:
		return true
	case dead(r.fresh): // ended and not to be restarted, or about to be
		return !wantedForGood(r.fresh)
	case !runs(r.fresh):
		// A task without a node in a slot that had none before is no part of the update: it must not block it.
		return r.fresh.GetDecided().GetNodeId() != "" || others
	case others:
		pause := timeOf(r.fresh.GetMeta().GetUpdatedAt()).Add(svc.GetSpec().GetUpdate().GetDelay().AsDuration())
		w.at(pause)
		return w.now.Before(pause)
	}
	return false
}

// wantedForGood reports whether a dead task fills its slot.
func wantedForGood(t *typesv1.Task) bool {
	return len(t.GetDecided().GetReason()) >= len(notRestarted) && t.GetDecided().GetReason()[:len(notRestarted)] == notRestarted
}

// renew begins the update of one slot.
func (w *work) renew(svc *typesv1.Service, r rollout) {
	startFirst := svc.GetSpec().GetUpdate().GetOrder() == typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST
	var kept *typesv1.Task // takes traffic until the new one does: the oldest, for it is in all tables
	for _, t := range r.old {
		switch {
		case t.GetDecided().GetNodeId() == "":
			w.drop(r.slot, t)
		case startFirst && kept == nil && runs(t):
			kept = t
		default:
			w.raise(r.slot, t, shutdown, replacedBy(svc))
		}
	}
	held := ""
	if kept == nil {
		held = w.predecessor(r.slot)
	}
	w.create(svc, r.slot, w.now, held)
}

func replacedBy(svc *typesv1.Service) string {
	return fmt.Sprintf("replaced by version %d of the service", svc.GetSpecVersion())
}

// retire stops the old tasks of a slot once the new one takes traffic, and at once those that do not run.
func (w *work) retire(svc *typesv1.Service, r *rollout) {
	serves := runs(r.fresh) && r.fresh.GetObserved().GetReady() && w.inTables(r.fresh)
	r.old = slices.DeleteFunc(r.old, func(t *typesv1.Task) bool {
		if runs(t) && !serves {
			return false
		}
		w.raise(r.slot, t, shutdown, replacedBy(svc))
		return true
	})
}

// inTables reports whether every machine in session sends connections to the task: each dispatcher that has nodes tells
// the lowest revision that they have applied. A machine that hangs must not hold the update, so the wait is bounded.
func (w *work) inTables(t *typesv1.Task) bool {
	limit := timeOf(t.GetMeta().GetUpdatedAt()).Add(tablePatience)
	if !w.now.Before(limit) {
		return true
	}
	for _, n := range w.order {
		dispatcher := n.node.GetStatus().GetSession().GetDispatcherId()
		if n.node.GetStatus().GetState() != typesv1.NodeState_NODE_STATE_READY || dispatcher == "" {
			continue
		}
		if w.old.Member("dispatcher/"+dispatcher).GetAppliedRevision() < t.GetMeta().GetRevision() {
			w.at(limit)
			return false
		}
	}
	return true
}

// setStatus tells how far the update is. A service that was never updated has no status.
func (w *work) setStatus(svc *typesv1.Service, g *group) {
	dirty, busy := false, false
	for _, s := range g.runnable() {
		r := w.rolloutOf(svc, s)
		dirty = dirty || len(r.old) > 0
		busy = busy || r.fresh != nil && w.underWay(svc, r)
	}
	was := svc.GetUpdateStatus()
	changed := was.GetSpecVersion() != svc.GetSpecVersion() && (dirty || len(svc.GetSpecHistory()) > 0)
	next := proto.CloneOf(was)
	switch {
	case changed:
		next = &typesv1.UpdateStatus{
			State: typesv1.UpdateState_UPDATE_STATE_UPDATING, SpecVersion: svc.GetSpecVersion(),
			StartedAt: timestamppb.New(w.now), Message: "update in progress",
		}
	case was.GetState() != typesv1.UpdateState_UPDATE_STATE_UPDATING:
		return
	}
	if !dirty && !busy {
		next.State, next.CompletedAt = typesv1.UpdateState_UPDATE_STATE_COMPLETED, timestamppb.New(w.now)
		next.Message = "update completed"
	}
	if proto.Equal(was, next) {
		return
	}
	updated := proto.CloneOf(svc)
	updated.UpdateStatus = next
	w.restOn(typesv1.Kind_KIND_SERVICE, svc.GetMeta().GetId())
	w.put(state.Wrap(updated))
}
