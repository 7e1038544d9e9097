// Package forecast says what the scheduler's rules would do if something changed, without doing it.
//
// It owns the world in which they are let run: a copy of a snapshot with the change in it, and agents that do at once what is
// decided. The decisions are package decide's own, made one after another until there is nothing left to do. It supposes
// that images are there, that tasks start at once and stay well, that jobs complete, and that nothing else happens. It is
// pure: a snapshot never changes, and there is nothing here that could write. It keeps nothing between two forecasts.
package forecast

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	// patience is for how long nothing that matters may happen until a forecast counts as at rest: what a cluster does by
	// itself every day, a schedule or the forgetting of a lost task, would never let it end.
	patience = time.Hour
	// horizon is how far a forecast looks ahead at most.
	horizon = 7 * 24 * time.Hour
	// mostActions bounds what is listed, and mostDecisions the work.
	mostActions, mostDecisions = 10_000, 20_000
)

// Change is what would be different.
type Change struct {
	Puts     []*typesv1.Object
	Removals []state.Key
	// PowerOff are the nodes, by id, that are found to be lost.
	PowerOff []string
}

// Of looks ahead. Over is asked now and then whether anybody still waits for the answer.
func Of(s *state.Snapshot, c Change, over func() bool) *schedulerv1.PlanResponse {
	// Step 1: what would happen in any case, so that it can be told apart.
	plain := &look{world: newWorld(s), over: over, anyway: map[deed]int{}}
	plain.run(nil)
	// Step 2: what would happen with the change.
	changed := &look{world: newWorld(s), over: over, anyway: plain.deeds(), watched: watch(s, c)}
	changed.change(c)
	changed.watched.see(changed.world)
	changed.run(changed.watched)
	// Step 3: how it ends.
	return &schedulerv1.PlanResponse{
		Version: s.Version().Proto(), ClusterTime: timestamppb.New(s.ClusterTime()),
		Steps: changed.steps, ActionsLeftOut: changed.leftOut, Rests: changed.unrest == "", Unrest: changed.unrest,
		Waits: waits(s, changed.s), Nodes: nodes(s, changed.s), Services: changed.watched.tell(changed.world),
	}
}

// deed is an action without its words and its time.
type deed struct {
	kind     schedulerv1.ActionKind
	service  string
	slot     uint64
	from, to string
}

func deedOf(a *schedulerv1.PlannedAction) deed {
	return deed{a.GetKind(), a.GetServiceId(), a.GetSlot(), a.GetFromNode(), a.GetToNode()}
}

// look is one look ahead.
type look struct {
	*world
	over    func() bool
	anyway  map[deed]int // what would happen without the change, and how often it has not been seen yet
	watched *services

	steps   []*schedulerv1.PlanStep
	listed  int
	leftOut uint64
	unrest  string
	// matters is when the last thing happened that would not happen anyway.
	matters time.Time
}

// deeds counts what was done.
func (l *look) deeds() map[deed]int {
	out := map[deed]int{}
	for _, s := range l.steps {
		for _, a := range s.GetActions() {
			out[deedOf(a)]++
		}
	}
	return out
}

// run decides and lets the agents act until there is rest.
func (l *look) run(seen *services) {
	begun := l.now
	l.matters = begun
	for decisions := 0; ; decisions++ {
		if l.over() || decisions >= mostDecisions || l.leftOut > 0 {
			l.unrest = "there would be more to do than is looked at"
			return
		}
		plan := l.decide()
		if !plan.Empty() {
			l.note(begun, l.actions(plan))
			l.apply(plan)
			seen.see(l.world)
			continue
		}
		if l.settle() {
			seen.see(l.world)
			continue
		}
		switch {
		case plan.Wake.IsZero() || plan.Wake.Sub(l.matters) > patience:
			return
		case plan.Wake.Sub(begun) > horizon:
			l.unrest = "it would go on for more than 7 days"
			return
		}
		l.now = plan.Wake
	}
}

// note lists what a decision does, in a step with what was decided at the same time before.
func (l *look) note(begun time.Time, actions []*schedulerv1.PlannedAction) {
	if len(actions) == 0 {
		return
	}
	after := l.now.Sub(begun)
	for _, a := range actions {
		d := deedOf(a)
		if _, known := l.anyway[d]; known {
			a.Anyway = true // also when it comes again: a schedule has no end
		} else {
			l.matters = l.now
		}
		l.watched.touch(a)
	}
	if room := mostActions - l.listed; len(actions) > room {
		l.leftOut += uint64(len(actions) - room)
		actions = actions[:room]
	}
	l.listed += len(actions)
	if last := len(l.steps) - 1; last >= 0 && !l.settled && l.steps[last].GetAfter().AsDuration() == after {
		l.steps[last].Actions = append(l.steps[last].Actions, actions...)
		return
	}
	l.settled = false
	l.steps = append(l.steps, &schedulerv1.PlanStep{After: durationpb.New(after), Actions: actions})
}
