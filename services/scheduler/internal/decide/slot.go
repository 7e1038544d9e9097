package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	// defaultDelay is the restart delay of a spec that has none.
	defaultDelay = 5 * time.Second
	// stopPatience is how long a new task waits for the one before it to stop.
	stopPatience = time.Minute
	// orphanTime is how long a task on a node that is down may run still.
	orphanTime = 24 * time.Hour
	// waitsForStop is the reason of a new task whose predecessor has not stopped.
	waitsForStop = "waits for the task before it to stop"
	// notRestarted begins the reason of a task that has ended and fills its slot for good. It is judged once: the words
	// are how a later decision knows.
	notRestarted = "not restarted: "
)

// mend replaces what is lost, drained or dead in a slot. A replacement is of the current spec.
func (w *work) mend(svc *typesv1.Service, s *slot) {
	for _, t := range s.wantedTasks() {
		node := w.nodes[t.GetDecided().GetNodeId()]
		startAfter := timeOf(t.GetDecided().GetStartAfter())
		switch {
		case dead(t):
			w.restart(svc, s, t)
		case t.GetDecided().GetNodeId() != "" && node == nil:
			w.drop(s, t)
			w.replace(svc, s, t, startAfter, "")
		case w.lost(t) && !w.hasPlace(svc):
			// Nobody else can take it, so giving it up would help nobody: when the node comes back it may be running
			// still. Its state says that its node is down.
		case w.lost(t):
			w.abandon(s, t, shutdown, "node "+node.name()+" is down")
			w.replace(svc, s, t, startAfter, "")
		case node.drains():
			w.raise(s, t, shutdown, "moved: node "+node.name()+" is drained")
			w.restOn(typesv1.Kind_KIND_NODE, node.id())
			w.replace(svc, s, t, startAfter, "")
		}
	}
}

// hasPlace reports whether any node takes one more task of the service's current spec.
func (w *work) hasPlace(svc *typesv1.Service) bool {
	_, why := w.choose(specKey{svc.GetMeta().GetId(), svc.GetSpecVersion()}, svc.GetSpec().GetTask())
	return why == ""
}

// abandon gives up a task on a lost node. It may be running still, and its record says so: what was observed stays.
// A node that has come back meanwhile wins, so the commit rests on the node.
func (w *work) abandon(s *slot, t *typesv1.Task, desired typesv1.TaskState, reason string) {
	w.restOn(typesv1.Kind_KIND_NODE, t.GetDecided().GetNodeId())
	w.change(s, t, func(d *typesv1.TaskDecided) {
		if d.GetDesired() < desired {
			d.Desired, d.Reason = desired, reason
		}
		if !d.GetAbandoned() {
			d.Abandoned, d.OrphanAfter = true, timestamppb.New(w.now.Add(orphanTime))
		}
	})
}

// replace makes the next task of a slot, unless one of the current spec is there that has not ended, or the one that
// went was of an older spec and another still runs.
func (w *work) replace(svc *typesv1.Service, s *slot, gone *typesv1.Task, startAfter time.Time, why string) {
	for _, t := range s.wantedTasks() {
		if t != gone && !dead(t) && (!w.dirty(svc, t) || w.dirty(svc, gone)) {
			return
		}
	}
	held := w.predecessor(s)
	if startAfter.After(w.now) {
		held = strings.TrimSuffix("restarts in "+short(startAfter.Sub(w.now))+": "+why, ": ")
	}
	w.create(svc, s, startAfter, held)
}

// short writes a duration without needless digits: 5s, 1.5s, 2m0s.
func short(d time.Duration) string { return d.Round(100 * time.Millisecond).String() }

// predecessor says what a new task of the slot has to wait for; nothing when all before it are over or out of reach.
func (w *work) predecessor(s *slot) string {
	for _, t := range s.tasks {
		if !wanted(t) && !w.over(t) && !w.lost(t) {
			return waitsForStop
		}
	}
	return ""
}

// restart replaces a task that has ended by itself, as its restart policy says.
func (w *work) restart(svc *typesv1.Service, s *slot, t *typesv1.Task) {
	d := t.GetDecided()
	if after := timeOf(d.GetStartAfter()); after.After(w.now) {
		// It failed while its own delay was pending (a bad image does so at once): wait for that delay, or the next one
		// would be made without any.
		w.at(after)
		return
	}
	if strings.HasPrefix(d.GetReason(), notRestarted) {
		return
	}
	policy := state.SpecOf(svc, t.GetSpecVersion()).GetRestart()
	if why := w.refusesRestart(policy, s, t); why != "" {
		w.change(s, t, func(d *typesv1.TaskDecided) { d.Reason = notRestarted + why })
		return
	}
	delay := defaultDelay
	if policy.GetDelay() != nil {
		delay = policy.GetDelay().AsDuration()
	}
	if w.nodes[d.GetNodeId()].drains() {
		delay = 0
	}
	why := ending(t)
	gone := w.raise(s, t, shutdown, verdict(t))
	w.replace(svc, s, gone, w.now.Add(delay), why)
}

// refusesRestart says why a task that has ended is not replaced; nothing if it is.
func (w *work) refusesRestart(policy *typesv1.RestartPolicy, s *slot, t *typesv1.Task) string {
	completed := t.GetObserved().GetState() == complete
	switch policy.GetCondition() {
	case typesv1.RestartCondition_RESTART_CONDITION_NONE:
		return "restart condition none"
	case typesv1.RestartCondition_RESTART_CONDITION_ON_FAILURE:
		if completed {
			return "it completed, restart condition on-failure"
		}
	case typesv1.RestartCondition_RESTART_CONDITION_ANY, typesv1.RestartCondition_RESTART_CONDITION_UNSPECIFIED:
	}
	if limit := policy.GetMaxAttempts(); limit > 0 && w.attempts(s, t, policy.GetWindow().AsDuration()) >= limit {
		return fmt.Sprintf("all %d attempts are used", limit)
	}
	return ""
}

// attempts counts the restarts in the slot's history for the task's spec version, within the window if there is one.
// Since is when a task was replaced. Tasks that were told to stop, and those on lost nodes, are no attempts.
func (w *work) attempts(s *slot, t *typesv1.Task, window time.Duration) (n uint64) {
	for _, p := range s.tasks {
		ended := dead(p) && p.GetObserved().GetState() != shutdown && !p.GetDecided().GetAbandoned()
		recent := window <= 0 || w.now.Sub(timeOf(p.GetDecided().GetSince())) < window
		if p != t && !wanted(p) && ended && recent && p.GetSpecVersion() == t.GetSpecVersion() {
			n++
		}
	}
	return n
}

// place tries again to find a node for tasks that have none.
func (w *work) place(svc *typesv1.Service, s *slot) {
	for _, t := range s.wantedTasks() {
		if t.GetDecided().GetNodeId() != "" || dead(t) || created(t).IsZero() {
			continue // has one, or was just looked at
		}
		held := ""
		if t.GetDecided().GetDesired() == ready {
			held = w.predecessor(s)
			if timeOf(t.GetDecided().GetStartAfter()).After(w.now) {
				held = "waits for its restart delay"
			}
		}
		w.change(s, t, func(d *typesv1.TaskDecided) { w.bind(svc, t.GetSpecVersion(), d, held) })
	}
}

// release lets tasks run that were held at READY: their delay has passed and the one before has stopped.
func (w *work) release(s *slot) {
	for _, t := range s.wantedTasks() {
		if t.GetDecided().GetDesired() != ready || dead(t) || created(t).IsZero() {
			continue
		}
		if after := timeOf(t.GetDecided().GetStartAfter()); after.After(w.now) {
			w.at(after)
			continue
		}
		if limit := created(t).Add(stopPatience); w.predecessor(s) != "" && w.now.Before(limit) {
			w.at(limit)
			continue
		}
		w.change(s, t, func(d *typesv1.TaskDecided) {
			d.Desired = running
			if d.GetNodeId() != "" {
				d.Reason = ""
			}
		})
	}
}

// oldestFirst keeps the newest n and returns the rest, of tasks that are ordered by age.
func oldestFirst(tasks []*typesv1.Task, n int) []*typesv1.Task {
	return slices.Clone(tasks[:max(len(tasks)-n, 0)])
}
