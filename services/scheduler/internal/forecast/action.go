package forecast

import (
	"strings"

	"github.com/shoalproject/shoal/internal/state"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
)

// actions is what a plan does, in words: what goes before what comes.
func (w *world) actions(p decide.Plan) []*schedulerv1.PlannedAction {
	var going, coming, telling []*schedulerv1.PlannedAction
	for _, put := range p.Puts {
		switch o := put.GetObject(); {
		case o.GetTask() != nil:
			a := w.taskAction(w.s.Task(o.GetTask().GetMeta().GetId()), o.GetTask())
			switch {
			case a == nil:
			case a.GetKind() == schedulerv1.ActionKind_ACTION_KIND_STOP || a.GetKind() == schedulerv1.ActionKind_ACTION_KIND_LOSE:
				going = append(going, a)
			default:
				coming = append(coming, a)
			}
		case o.GetService() != nil:
			if a := serviceAction(w.s.Service(o.GetService().GetMeta().GetId()), o.GetService()); a != nil {
				telling = append(telling, a)
			}
		}
	}
	for _, d := range p.Deletes {
		t := w.s.Task(d.GetId())
		if t != nil && book.Wanted(t) && t.GetDecided().GetNodeId() == "" { // it never had a place, and is wanted no more
			a := w.about(t, schedulerv1.ActionKind_ACTION_KIND_STOP)
			going = append(going, a)
		}
	}
	return append(append(going, coming...), telling...)
}

// about is an action without its nodes.
func (w *world) about(t *typesv1.Task, kind schedulerv1.ActionKind) *schedulerv1.PlannedAction {
	return &schedulerv1.PlannedAction{Kind: kind, ServiceId: t.GetServiceId(), ServiceName: w.serviceName(t.GetServiceId()),
		Slot: t.GetDecided().GetSlot(), SpecVersion: t.GetSpecVersion(), Reason: t.GetDecided().GetReason()}
}

// serviceName is also that of a service which the change removes.
func (w *world) serviceName(id string) string {
	svc := w.s.Service(id)
	if svc == nil {
		svc = w.first.Service(id)
	}
	return svc.GetSpec().GetAnnotations().GetName()
}

func (w *world) nodeName(id string) string {
	if n := w.s.Node(id); n != nil {
		return nameOf(n)
	}
	if n := w.first.Node(id); n != nil {
		return nameOf(n)
	}
	return id
}

func nameOf(n *typesv1.Node) string {
	if h := state.Hostname(n); h != "" {
		return h
	}
	return n.GetMeta().GetId()
}

// taskAction is nil for a change that a person need not know of.
func (w *world) taskAction(was, is *typesv1.Task) *schedulerv1.PlannedAction {
	before, after := was.GetDecided(), is.GetDecided()
	at := w.nodeName(after.GetNodeId())
	switch {
	case was == nil && after.GetNodeId() == "":
		return w.about(is, schedulerv1.ActionKind_ACTION_KIND_WAIT)
	case was == nil:
		a := w.about(is, schedulerv1.ActionKind_ACTION_KIND_START)
		a.ToNode = at
		if from := w.predecessor(is); from != nil {
			a.FromNode = w.nodeName(from.GetDecided().GetNodeId())
			a.Kind = schedulerv1.ActionKind_ACTION_KIND_MOVE
			if from.GetDecided().GetNodeId() == after.GetNodeId() {
				a.Kind = schedulerv1.ActionKind_ACTION_KIND_REPLACE
			}
		}
		return a
	case after.GetAbandoned() && !before.GetAbandoned():
		a := w.about(is, schedulerv1.ActionKind_ACTION_KIND_LOSE)
		a.FromNode = at
		return a
	case after.GetDesired() > running && before.GetDesired() <= running:
		a := w.about(is, schedulerv1.ActionKind_ACTION_KIND_STOP)
		a.FromNode = at
		return a
	case before.GetNodeId() == "" && after.GetNodeId() != "":
		a := w.about(is, schedulerv1.ActionKind_ACTION_KIND_START)
		a.ToNode = at
		return a
	case after.GetDesired() == running && before.GetDesired() < running && after.GetNodeId() != "":
		a := w.about(is, schedulerv1.ActionKind_ACTION_KIND_RUN)
		a.ToNode = at
		return a
	}
	return nil
}

// predecessor is the task that a new one stands in for: the newest of its slot that was to run until now.
func (w *world) predecessor(t *typesv1.Task) (out *typesv1.Task) {
	for other := range w.s.TasksOfSlot(t.GetServiceId(), t.GetDecided().GetSlot()) {
		d := other.GetDecided()
		if book.KeyOf(other) != book.KeyOf(t) || d.GetNodeId() == "" || !book.Wanted(other) && state.Terminal(other.GetObserved().GetState()) {
			continue
		}
		if out == nil || !out.GetMeta().GetCreatedAt().AsTime().After(other.GetMeta().GetCreatedAt().AsTime()) {
			out = other
		}
	}
	return out
}

// serviceAction is a new state of an update, a rollback, a job or a rebalance.
func serviceAction(was, is *typesv1.Service) *schedulerv1.PlannedAction {
	a := &schedulerv1.PlannedAction{Kind: schedulerv1.ActionKind_ACTION_KIND_STATUS, ServiceId: is.GetMeta().GetId(),
		ServiceName: is.GetSpec().GetAnnotations().GetName()}
	switch update, job, even := is.GetUpdateStatus(), is.GetJobStatus(), is.GetRebalanceStatus(); {
	case update.GetState() != was.GetUpdateStatus().GetState():
		a.Reason, a.SpecVersion = update.GetMessage(), update.GetSpecVersion()
		if a.GetReason() == "" {
			a.Reason = lower(update.GetState().String(), "UPDATE_STATE_")
		}
	case job.GetState() != was.GetJobStatus().GetState() || job.GetIteration() != was.GetJobStatus().GetIteration():
		a.Reason = "job " + lower(job.GetState().String(), "JOB_STATE_")
		if job.GetMessage() != "" {
			a.Reason = job.GetMessage()
		}
	case even.GetState() != was.GetRebalanceStatus().GetState() || even.GetRequest() != was.GetRebalanceStatus().GetRequest():
		a.Reason = "rebalance: " + even.GetMessage()
	default:
		return nil
	}
	return a
}

func lower(name, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefix)), "_", " ")
}
