package reconcile

import (
	"bytes"
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// Assign takes an assignment, or refuses it whole. Conflict: it is older than what is in force, or a difference to
// something that this agent does not have; the session must begin anew.
func (l *Loop) Assign(ctx context.Context, a *dispatcherv1.Assignment) error {
	answer := make(chan error, 1)
	l.post(ctx, func(ctx context.Context) { answer <- l.assign(ctx, a) })
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Container is the container of a task that is here, and whether more may come of it: it has not ended for good. NotFound:
// the task is not here.
func (l *Loop) Container(ctx context.Context, taskID string) (id string, live bool, err error) {
	type answer struct {
		id   string
		live bool
	}
	answers := make(chan answer, 1)
	l.post(ctx, func(context.Context) {
		a := answer{}
		if e := l.tasks[taskID]; e != nil {
			a = answer{container.ID(e.id, e.attempt), !state.Terminal(e.life.State)}
		}
		answers <- a
	})
	select {
	case a := <-answers:
		if a.id == "" {
			return "", false, errs.New(errs.NotFound, "task %s is not on this machine", taskID)
		}
		return a.id, a.live, nil
	case <-ctx.Done():
		return "", false, ctx.Err()
	}
}

// Images are those of the tasks that are to run here, or do, or that this machine may run again by itself: without a registry it
// could not.
func (l *Loop) Images(ctx context.Context) ([]string, error) {
	answer := make(chan []string, 1)
	l.post(ctx, func(context.Context) {
		var out []string
		for _, e := range l.tasks {
			if !e.life.Over() || runsAgain(e) {
				out = append(out, e.assigned.GetSpec().GetContainer().GetImage())
			}
		}
		answer <- out
	})
	select {
	case out := <-answer:
		return out, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Barrier hears which version every live meshproxy has applied.
func (l *Loop) Barrier(ctx context.Context, applied *typesv1.Version) {
	l.post(ctx, func(ctx context.Context) {
		l.barrier = applied
		for _, e := range l.tasks {
			if e.life.Leaving() && l.passed(e) {
				l.step(ctx, e)
			}
		}
	})
}

// Acked hears what the cluster has committed.
func (l *Loop) Acked(ctx context.Context, batch []*dispatcherv1.TaskStatus) {
	l.post(ctx, func(ctx context.Context) {
		for _, s := range batch {
			if e := l.tasks[s.GetTaskId()]; e != nil && !e.acked && proto.Equal(e.observed, s.GetObserved()) {
				e.acked = true
				l.noteLazily(ctx, e)
			}
		}
	})
}

func (l *Loop) assign(ctx context.Context, a *dispatcherv1.Assignment) error {
	if err := l.refuse(a); err != nil {
		return err
	}
	if !sameEpoch(l.generation, a.GetGeneration()) && l.generation != nil {
		l.Log.Warn("another epoch: the cluster was restored; reporting everything again", "epoch", a.GetGeneration().GetEpoch().GetNumber())
		for _, e := range l.tasks {
			l.reportAgain(e)
		}
	}
	l.generation, l.assigned = a.GetGeneration(), true
	if a.GetFull() || len(a.GetBlocks()) > 0 {
		l.blocks = a.GetBlocks()
	}
	l.unsaved.Generation, l.unsaved.Blocks, l.urgent = l.generation, l.blocks, true
	l.take(l.generation)
	if a.GetHistory() != nil {
		l.setHistory(a.GetHistory().GetTasks())
	}
	wanted := make(map[string]bool, len(a.GetTasks()))
	for _, t := range a.GetTasks() {
		wanted[t.GetTaskId()] = true
		l.want(ctx, t)
	}
	for _, id := range a.GetRemovedTasks() {
		if !wanted[id] {
			l.drop(ctx, id)
		}
	}
	if a.GetFull() {
		for id := range l.tasks {
			if !wanted[id] {
				l.drop(ctx, id)
			}
		}
		l.sweep(ctx)
	}
	return nil
}

// refuse says why an assignment can't be taken. An older one would stop what a newer one has started.
func (l *Loop) refuse(a *dispatcherv1.Assignment) error {
	now, next := l.generation, a.GetGeneration()
	switch {
	case next.GetRevision() == 0:
		return errs.New(errs.Invalid, "assignment without a generation")
	case !a.GetFull() && (!l.assigned || !sameEpoch(now, next)):
		return errs.New(errs.Conflict, "assignment %s is a difference to one that this agent does not have", container.GenerationOf(next))
	case now == nil:
		return nil
	case next.GetEpoch().GetNumber() < now.GetEpoch().GetNumber(),
		sameEpoch(now, next) && next.GetRevision() < now.GetRevision():
		return errs.New(errs.Conflict, "assignment %s is older than %s, which is in force", container.GenerationOf(next), container.GenerationOf(now))
	}
	return nil
}

func (l *Loop) want(ctx context.Context, t *dispatcherv1.AssignedTask) {
	e := l.entry(t.GetTaskId())
	if t.GetSpec() == nil && e.assigned != nil { // its service is gone; it is stopped as it was started
		t = proto.CloneOf(t)
		t.Spec, t.SpecHash = e.assigned.GetSpec(), e.assigned.GetSpecHash()
	}
	if len(e.hash) > 0 && len(t.GetSpecHash()) > 0 && !bytes.Equal(e.hash, t.GetSpecHash()) {
		// A task's spec never changes, so this container is not the task's: it counts as one that was never started.
		l.Log.Warn("a container was made from another spec than its task's", "task", e.id)
		e.life.Found(task.Made, true, nil)
	}
	e.hash = nil
	if e.assigned == nil || !proto.Equal(e.assigned, t) {
		e.assigned = t
		l.note(e)
	}
	e.life.Desired(t.GetDesired())
	if t.GetSpec().GetContainer().GetDrainTime().AsDuration() > 0 {
		e.life.Drains()
	}
	if !e.life.Leaving() {
		e.stopAt = nil
	}
	if e.life.Leaving() && e.stopAt == nil {
		e.stopAt = &typesv1.Version{Epoch: l.generation.GetEpoch(), Revision: t.GetStopRevision()}
		if t.GetStopRevision() == 0 {
			e.stopAt = l.generation
		}
	}
	l.step(ctx, e)
}

func (l *Loop) drop(ctx context.Context, id string) {
	e := l.tasks[id]
	if e == nil {
		return
	}
	e.life.Dropped()
	if e.stopAt == nil {
		e.stopAt = l.generation // it is in no endpoint list from then on
	}
	l.step(ctx, e)
}

// passed says whether every live meshproxy has dropped a task that leaves.
func (l *Loop) passed(e *entry) bool {
	return e.stopAt != nil && sameEpoch(l.barrier, e.stopAt) && l.barrier.GetRevision() >= e.stopAt.GetRevision()
}

func sameEpoch(a, b *typesv1.Version) bool {
	return a != nil && b != nil && proto.Equal(a.GetEpoch(), b.GetEpoch())
}
