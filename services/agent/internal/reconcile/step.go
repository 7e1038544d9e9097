package reconcile

import (
	"context"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// step takes a task as far as it goes now. It is called after everything that happens to the task.
func (l *Loop) step(ctx context.Context, e *entry) {
	if e.due != task.None {
		return // its next step waits for the journal
	}
	if e.life.Leaving() && l.passed(e) {
		e.life.MeshPassed()
	}
	for {
		a := e.life.Next()
		l.report(e)
		l.watch(ctx, e)
		l.attend(ctx, e)
		switch a {
		case task.None:
			l.again(ctx, e)
			return
		case task.Forget:
			l.forget(e)
			return
		case task.Prepare, task.Clean:
			// Step 1: the journal. What was assigned must be known before something is made of it, and an exit code
			// before the container that remembers it is deleted. Step 2: do, when it is saved.
			e.due = a
			l.note(e)
			return
		default:
			l.do(ctx, e, a)
		}
	}
}

// report makes a new status if there is something new to say.
func (l *Loop) report(e *entry) {
	if e.life.State == typesv1.TaskState_TASK_STATE_UNSPECIFIED {
		return
	}
	next := &typesv1.TaskObserved{
		Attempt: e.attempt, State: e.life.State, Ready: e.life.Ready, Message: e.life.Message, Health: healthOf(e.life.Health),
	}
	if e.life.State >= typesv1.TaskState_TASK_STATE_READY {
		next.ContainerId, next.Pid = container.ID(e.id, e.attempt), e.pid
	}
	if e.life.Exit != nil {
		next.ExitCode = proto.Int32(e.life.Exit.Code)
	}
	if e.observed != nil {
		next.Seq, next.At = e.observed.GetSeq(), e.observed.GetAt()
		if proto.Equal(next, e.observed) {
			return
		}
		next.Seq++
	} else {
		// The journal may be lost while the cluster remembers: begin above all that was counted before.
		next.Seq = uint64(max(1, l.Now().UnixMilli()))
	}
	next.At = timestamppb.New(l.Now())
	if e.observed.GetState() != next.GetState() {
		l.Log.Info("task", "task", e.id, "state", next.GetState().String(), "message", next.GetMessage())
	}
	e.observed, e.acked = next, false
	l.note(e)
}

func healthOf(h task.Health) typesv1.HealthState {
	switch h {
	case task.Unknown:
		return typesv1.HealthState_HEALTH_STATE_STARTING
	case task.Healthy:
		return typesv1.HealthState_HEALTH_STATE_HEALTHY
	case task.Unhealthy:
		return typesv1.HealthState_HEALTH_STATE_UNHEALTHY
	case task.Unchecked:
	}
	return typesv1.HealthState_HEALTH_STATE_UNSPECIFIED
}

// reportAgain tells a status that was acknowledged by a cluster that has forgotten it.
func (l *Loop) reportAgain(e *entry) {
	if e.observed == nil {
		return
	}
	e.observed = proto.CloneOf(e.observed)
	e.observed.Seq++
	e.acked = false
	l.note(e)
}

// watch waits for the end of a container that runs.
func (l *Loop) watch(ctx context.Context, e *entry) {
	if e.watched || !e.life.Serves() {
		return
	}
	e.watched = true
	l.waitFor(ctx, e)
	if id := container.ID(e.id, e.attempt); e.heard != id {
		e.heard = id
		l.workers.Go(ctx, "keep output", func(ctx context.Context) error {
			if err := l.Executor.KeepOutput(ctx, id); err != nil && ctx.Err() == nil && !errs.Is(err, errs.Precondition) {
				l.Log.Warn("the output of a container is not held: if its logger dies it can't write any more", "container", id, "error", err)
			}
			return nil
		})
	}
}

func (l *Loop) forget(e *entry) {
	delete(l.tasks, e.id)
	delete(l.unsaved.Put, e.id)
	l.unsaved.Delete = append(l.unsaved.Delete, e.id)
	l.urgent = true
	l.setKept(container.ID(e.id, e.attempt), false)
	l.setKept(container.ID(e.id, 0), false)
	l.setAttempt(e.id, 0)
	l.forgetPayloads()
}
