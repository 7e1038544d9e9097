package reconcile

import (
	"context"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

const (
	// aloneAfter is how long no dispatcher must have been there before this machine acts for itself. It is far longer than any
	// of the cluster's own elections and handovers takes.
	aloneAfter = 30 * time.Second
	// defaultDelay is the restart delay of a service that says none.
	defaultDelay = 5 * time.Second
	// keptAttempts are those of a task whose output is kept.
	keptAttempts = 5
)

// Line says whether a dispatcher holds this machine's session. Without one nobody replaces a task that fails. After a while
// the machine runs it again itself, as a further attempt of the same task, if its restart policy allows it and the cluster has
// not heard of the end: what the cluster knows of is the scheduler's.
func (l *Loop) Line(ctx context.Context, up bool) {
	l.post(ctx, func(ctx context.Context) {
		l.losses++
		l.alone = false
		if up {
			return
		}
		loss := l.losses
		l.after(ctx, aloneAfter, func(ctx context.Context) {
			if l.losses != loss {
				return
			}
			l.alone = true
			l.Log.Warn("no dispatcher for long: containers that fail are run again here, as their services allow", "after", aloneAfter)
			for _, e := range l.tasks {
				l.again(ctx, e)
			}
		})
	})
}

// again runs a task that has ended once more, after its restart delay.
func (l *Loop) again(ctx context.Context, e *entry) {
	if e.again || !l.mayRunAgain(e) {
		return
	}
	delay := defaultDelay
	if d := e.assigned.GetSpec().GetRestart().GetDelay(); d != nil {
		delay = d.AsDuration()
	}
	e.again = true
	l.after(ctx, delay, func(ctx context.Context) {
		e.again = false
		if !l.mayRunAgain(e) || l.tasks[e.id] != e {
			return
		}
		l.setKept(container.ID(e.id, e.attempt), e.attempt == 0) // the first one's id stands for the task
		e.attempt++
		e.pid, e.probes, e.hash = 0, nil, nil
		l.setKept(container.ID(e.id, e.attempt), true)
		l.setAttempt(e.id, e.attempt)
		e.life.Again()
		l.step(ctx, e)
	})
}

func (l *Loop) mayRunAgain(e *entry) bool { return l.alone && runsAgain(e) }

// runsAgain says whether a task that has ended is one that this machine runs again when it is alone.
func runsAgain(e *entry) bool {
	if e.acked || !e.life.Done() {
		return false
	}
	policy := e.assigned.GetSpec().GetRestart()
	if limit := policy.GetMaxAttempts(); limit > 0 && uint64(e.attempt) >= limit {
		return false
	}
	switch e.life.State {
	case typesv1.TaskState_TASK_STATE_FAILED:
		return policy.GetCondition() != typesv1.RestartCondition_RESTART_CONDITION_NONE
	case typesv1.TaskState_TASK_STATE_COMPLETE:
		return policy.GetCondition() == typesv1.RestartCondition_RESTART_CONDITION_ANY
	}
	return false
}

func (l *Loop) setAttempt(taskID string, attempt uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if attempt == 0 {
		delete(l.attempts, taskID)
		return
	}
	l.attempts[taskID] = attempt
}
