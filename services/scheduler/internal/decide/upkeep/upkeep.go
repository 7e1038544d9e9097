// Package upkeep keeps a slot filled: what is dead or lost in it is replaced, what waits goes on, what is over is forgotten.
//
// It owns the restart policy, the rules about tasks on lost nodes, and the history of a slot. How many slots there are is
// none of its business. A Keeper belongs to one decision.
package upkeep

import (
	"cmp"
	"slices"
	"strings"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/loss"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/reason"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/rollout"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/visit"
)

// Keeper tends the slots of one service.
type Keeper struct{ *rollout.Rollout }

const (
	// defaultDelay is the restart delay of a spec that has none.
	defaultDelay = 5 * time.Second
	// stopPatience is how long a new task waits for the one before it to stop.
	stopPatience = time.Minute
	// steadyRun is the age from which a task's failure begins a new row.
	steadyRun = 10 * time.Minute
	// crashLoop is the number of failures in a row from which a slot is said to be in a crash loop.
	crashLoop = 5
)

// Tend is what is done in any slot of a service.
func (k *Keeper) Tend(s *book.Slot) {
	// What asks whether a predecessor is still there must not see one that goes: here who is made to follow, and below who waits.
	if slices.ContainsFunc(s.Tasks, func(t *typesv1.Task) bool { return !book.Wanted(t) }) {
		k.Reap(s)
	}
	k.mend(s)
	k.Reap(s)
	k.place(s)
	k.release(s)
	for _, t := range s.Now() {
		k.Observe(t)
	}
}

// mend replaces what is lost or dead in a slot.
func (k *Keeper) mend(s *book.Slot) {
	for _, t := range s.Now() {
		if !book.Wanted(t) {
			continue
		}
		switch {
		case task.Dead(t) && task.Abandoned(t): // it ended where it was, and has a successor already
			k.Raise(t, task.Shutdown, reason.Verdict(t))
		case task.Dead(t):
			k.restart(s, t)
		case k.Lost(t):
			k.mendLost(s, t)
		case task.Abandoned(t):
			k.takeBack(s, t)
		case len(t.GetDecided().GetVolumes()) > 0 && k.leave(s, t):
		case strings.HasPrefix(t.GetDecided().GetReason(), loss.HeldBack),
			strings.HasPrefix(t.GetDecided().GetReason(), visit.VolumeAway) && t.GetDecided().GetNodeId() != "": // its node is back
			k.Change(t, func(d *typesv1.TaskDecided) { d.Reason = "" })
		}
	}
}

// Replace makes the next task of a slot, unless one is there that has not ended: of the same spec, or any if what went was
// on its way out itself.
func (k *Keeper) Replace(s *book.Slot, went *typesv1.Task, o visit.Order, why string) {
	for _, t := range s.Tasks {
		if t != went && task.Wanted(t) && !task.Dead(t) && (!k.Dirty(t) || k.Dirty(went)) {
			return
		}
	}
	o.Held = k.Predecessor(s)
	if o.StartAfter.After(k.Now) {
		o.Held = strings.TrimSuffix("restarts in "+reason.Short(o.StartAfter.Sub(k.Now))+": "+why, ": ")
	}
	o.Version = k.VersionFor(went)
	k.Create(s, o)
}

// place tries again to find a node for tasks that have none.
func (k *Keeper) place(s *book.Slot) {
	for _, t := range s.Now() {
		if !task.Wanted(t) || t.GetDecided().GetNodeId() != "" || task.Dead(t) || task.Fresh(t) && !k.Again {
			continue // has one, or was just looked at
		}
		if k.Outdated(t) {
			k.AwaitPlace() // it is made anew, now or when its node is one of those that are meant
			continue
		}
		held := ""
		if t.GetDecided().GetDesired() == task.Ready {
			held = cmp.Or(k.Predecessor(s), k.InUseFor(s, t), k.Gate(s.Key.Iteration))
			if task.TimeOf(t.GetDecided().GetStartAfter()).After(k.Now) {
				held = "waits for its restart delay"
			}
		}
		k.BindPending(t, held)
	}
}

// release lets tasks run that were held at READY: their delay has passed, the one before has stopped, and what the service
// depends on is healthy.
func (k *Keeper) release(s *book.Slot) {
	for _, t := range s.Now() {
		if !task.Wanted(t) || t.GetDecided().GetDesired() != task.Ready || task.Dead(t) || task.Fresh(t) && !k.Again {
			continue
		}
		if k.Lost(t) {
			continue // nobody there can begin with it
		}
		if after := task.TimeOf(t.GetDecided().GetStartAfter()); after.After(k.Now) {
			k.At(after)
			continue
		}
		if limit := task.Created(t).Add(stopPatience); k.Predecessor(s) != "" && (task.Fresh(t) || k.Now.Before(limit)) {
			k.At(limit)
			continue
		}
		if k.InUseFor(s, t) != "" {
			continue
		}
		if why := k.Gate(s.Key.Iteration); why != "" {
			if t.GetDecided().GetNodeId() != "" {
				k.Say(t, why)
			}
			continue
		}
		k.Change(t, func(d *typesv1.TaskDecided) {
			d.Desired = task.Running
			if d.GetNodeId() != "" {
				d.Reason = ""
			}
		})
	}
}
