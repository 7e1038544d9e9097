package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/loss"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/reason"
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
	// steadyRun is the age from which a task's failure begins a new row.
	steadyRun = 10 * time.Minute
	// crashLoop is the number of failures in a row from which a slot is said to be in a crash loop.
	crashLoop = 5
)

// mend replaces what is lost or dead in a slot.
func (v *visit) mend(s *book.Slot) {
	for _, t := range slices.Clone(s.Tasks) {
		if !book.Wanted(t) {
			continue
		}
		switch {
		case dead(t) && abandoned(t): // it ended where it was, and has a successor already
			v.raise(t, shutdown, reason.Verdict(t))
		case dead(t):
			v.restart(s, t)
		case v.w.lost(t):
			v.mendLost(s, t)
		case abandoned(t):
			v.takeBack(s, t)
		case strings.HasPrefix(t.GetDecided().GetReason(), loss.HeldBack): // its node is back
			v.change(t, func(d *typesv1.TaskDecided) { d.Reason = "" })
		}
	}
}

// replace makes the next task of a slot, unless one is there that has not ended: of the same spec, or any if what went was
// on its way out itself.
func (v *visit) replace(s *book.Slot, went *typesv1.Task, o order, why string) {
	for _, t := range s.Tasks {
		if t != went && wanted(t) && !dead(t) && (!v.dirty(t) || v.dirty(went)) {
			return
		}
	}
	o.held = v.predecessor(s)
	if o.startAfter.After(v.w.now) {
		o.held = strings.TrimSuffix("restarts in "+reason.Short(o.startAfter.Sub(v.w.now))+": "+why, ": ")
	}
	o.version = v.versionFor(went)
	v.create(s, o)
}

// predecessor says what a new task of the slot has to wait for; nothing when all before it are over or out of reach.
func (v *visit) predecessor(s *book.Slot) string {
	for _, t := range s.Tasks {
		if !book.Wanted(t) && !v.w.gone(t) && !v.w.lost(t) {
			return waitsForStop
		}
	}
	return ""
}

// restart replaces a task that has ended by itself, as its restart policy says.
func (v *visit) restart(s *book.Slot, t *typesv1.Task) {
	d := t.GetDecided()
	if after := timeOf(d.GetStartAfter()); after.After(v.w.now) {
		// It failed while its own delay was pending (a bad image does so at once): wait for that delay, or the next one
		// would be made without any.
		v.at(after)
		return
	}
	if strings.HasPrefix(d.GetReason(), notRestarted) {
		return
	}
	policy := state.SpecOf(v.svc, t.GetSpecVersion()).GetRestart()
	if why := v.refusesRestart(policy, s, t); why != "" {
		v.countFailure(t)
		v.change(t, func(d *typesv1.TaskDecided) { d.Reason = notRestarted + why })
		return
	}
	failures := d.GetFailures()
	switch {
	case t.GetObserved().GetState() == complete:
		failures = 0
	case v.w.now.Sub(created(t)) > steadyRun: // it was well for a while
		failures = 1
	default:
		failures++
	}
	delay := restartDelay(policy, failures)
	if v.w.book.Node(d.GetNodeId()).Drains() {
		delay = 0
	}
	why := reason.Ending(t)
	if failures >= crashLoop {
		why = fmt.Sprintf("%s, crash loop: %d failures in a row", why, failures)
	}
	v.countFailure(t)
	went := v.raise(t, shutdown, reason.Verdict(t))
	if v.stays(s) {
		v.replace(s, went, order{startAfter: v.w.now.Add(delay), failures: failures}, why)
	}
}

// restartDelay is the wait before the next attempt: the policy's, doubled with each failure in a row after the first if the
// policy lets it grow.
func restartDelay(policy *typesv1.RestartPolicy, failures uint64) time.Duration {
	delay := defaultDelay
	if policy.GetDelay() != nil {
		delay = policy.GetDelay().AsDuration()
	}
	limit := policy.GetMaxDelay().AsDuration()
	for range min(max(failures, 1)-1, 40) {
		if delay >= limit {
			break
		}
		delay = min(2*delay, limit)
	}
	return delay
}

// refusesRestart says why a task that has ended is not replaced; nothing if it is.
func (v *visit) refusesRestart(policy *typesv1.RestartPolicy, s *book.Slot, t *typesv1.Task) string {
	completed := t.GetObserved().GetState() == complete
	switch policy.GetCondition() {
	case typesv1.RestartCondition_RESTART_CONDITION_NONE:
		return "restart condition none"
	case typesv1.RestartCondition_RESTART_CONDITION_ON_FAILURE:
		if completed {
			return "it completed, restart condition on-failure"
		}
	case typesv1.RestartCondition_RESTART_CONDITION_ANY, typesv1.RestartCondition_RESTART_CONDITION_UNSPECIFIED:
		if completed && state.IsJob(v.svc) {
			return "it completed"
		}
	}
	if limit := policy.GetMaxAttempts(); limit > 0 && v.attempts(s, t, policy.GetWindow().AsDuration()) >= limit {
		return fmt.Sprintf("all %d attempts are used", limit)
	}
	return ""
}

// attempts counts the restarts in the slot's history for the task's spec version, within the window if there is one.
// Since is when a task was replaced. Tasks that were told to stop, and those on lost nodes, are no attempts.
func (v *visit) attempts(s *book.Slot, t *typesv1.Task, window time.Duration) (n uint64) {
	for _, p := range s.Tasks {
		ended := dead(p) && p.GetObserved().GetState() != shutdown && !abandoned(p)
		recent := window <= 0 || v.w.now.Sub(timeOf(p.GetDecided().GetSince())) < window
		if p != t && !book.Wanted(p) && ended && recent && p.GetSpecVersion() == t.GetSpecVersion() {
			n++
		}
	}
	return n
}

// place tries again to find a node for tasks that have none.
func (v *visit) place(s *book.Slot) {
	for _, t := range slices.Clone(s.Tasks) {
		if !wanted(t) || t.GetDecided().GetNodeId() != "" || dead(t) || fresh(t) && !v.again {
			continue // has one, or was just looked at
		}
		held := ""
		if t.GetDecided().GetDesired() == ready {
			held = v.predecessor(s)
			if timeOf(t.GetDecided().GetStartAfter()).After(v.w.now) {
				held = "waits for its restart delay"
			}
		}
		v.bindPending(t, held)
	}
}

// release lets tasks run that were held at READY: their delay has passed and the one before has stopped.
func (v *visit) release(s *book.Slot) {
	for _, t := range slices.Clone(s.Tasks) {
		if !wanted(t) || t.GetDecided().GetDesired() != ready || dead(t) || fresh(t) {
			continue
		}
		if after := timeOf(t.GetDecided().GetStartAfter()); after.After(v.w.now) {
			v.at(after)
			continue
		}
		if limit := created(t).Add(stopPatience); v.predecessor(s) != "" && v.w.now.Before(limit) {
			v.at(limit)
			continue
		}
		v.change(t, func(d *typesv1.TaskDecided) {
			d.Desired = running
			if d.GetNodeId() != "" {
				d.Reason = ""
			}
		})
	}
}

// deadline is a cluster time as objects have it.
func deadline(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }
