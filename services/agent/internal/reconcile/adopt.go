package reconcile

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/run"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/journal"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// adopt finds out what there is: the journal says what was said, the executor what is true. It touches no container.
func (l *Loop) adopt(ctx context.Context) error {
	s, err := l.Journal.Load(ctx)
	if err != nil {
		return err
	}
	if s.Cluster != "" && s.Cluster != l.Cluster {
		return fmt.Errorf("the journal belongs to cluster %s, this machine is in %s; `shoal leave --force` removes it, then join again", s.Cluster, l.Cluster)
	}
	l.unsaved.Cluster = l.Cluster
	found, err := l.look(ctx)
	if err != nil {
		return nil //nolint:nilerr // only the end of ctx
	}
	l.generation, l.blocks = s.Generation, s.Blocks
	l.take(s.Generation)
	for id, r := range s.Tasks {
		l.remember(id, r)
	}
	for _, f := range found {
		l.match(f)
		if f.Presence == task.Running {
			l.endCommands(ctx, f.ID)
		}
	}
	for _, e := range l.tasks {
		l.step(ctx, e)
	}
	l.Log.Info("took over what runs here", "containers", len(found), "tasks", len(l.tasks))
	return nil
}

// endCommands ends what the agent's death has left of people's commands: it is theirs, not the container's.
func (l *Loop) endCommands(ctx context.Context, id string) {
	l.workers.Go(ctx, "end commands", func(ctx context.Context) error {
		if err := l.Executor.EndCommands(ctx, id); err != nil && ctx.Err() == nil {
			l.Log.Warn("commands that were left in a container are not ended; they end with it", "container", id, "error", err)
		}
		return nil
	})
}

// look waits for the runtime as long as it takes: without it nothing can be said of this machine.
func (l *Loop) look(ctx context.Context) ([]container.Found, error) {
	for warned := false; ; {
		found, err := l.Executor.List(ctx)
		if err == nil {
			return found, nil
		}
		if !warned {
			l.Log.Warn("waiting for the container runtime", "error", err)
			warned = true
		}
		if err := run.Sleep(ctx, retryLast); err != nil {
			return nil, err
		}
	}
}

// remember makes the entry of what the journal says.
func (l *Loop) remember(id string, r journal.Record) {
	e := l.entry(id)
	e.assigned, e.observed, e.acked = r.Task, r.Observed, r.Acked
	if r.Observed == nil {
		return
	}
	e.attempt, e.pid = r.Observed.GetAttempt(), r.Observed.GetPid()
	e.life.State, e.life.Ready, e.life.Message = r.Observed.GetState(), r.Observed.GetReady(), r.Observed.GetMessage()
	if h := r.Observed.GetHealth(); h == typesv1.HealthState_HEALTH_STATE_UNHEALTHY {
		e.life.WasUnhealthy(task.WhyUnhealthy(r.Observed.GetMessage()))
	} else {
		e.life.Checked(h != typesv1.HealthState_HEALTH_STATE_UNSPECIFIED, r.Task.GetSpec().GetContainer().GetReadiness() != nil)
	}
	if r.Observed.ExitCode != nil {
		e.life.Exit = &task.Exit{Code: r.Observed.GetExitCode()}
	}
	if r.Task.GetDesired() >= typesv1.TaskState_TASK_STATE_SHUTDOWN {
		e.life.WasAsked()
	}
	if !r.Acked {
		l.Outbox.Put(id, r.Observed)
	}
	// A task that had not come to its end may have left a namespace behind, even if it has no container.
	e.life.Found(task.Absent, true, nil)
}

// match lays what the runtime has over what the journal says.
func (l *Loop) match(f container.Found) {
	l.IDs.Hold(f.ID, f.IDs)
	id, attempt, ok := container.TaskOf(f.ID)
	if !ok {
		l.Log.Warn("a container with our label has a name that is not ours; leaving it alone", "container", f.ID)
		l.setKept(f.ID, true)
		return
	}
	e := l.entry(id)
	if attempt < e.attempt {
		return // an earlier attempt: Sweep takes it
	}
	e.attempt, e.hash = attempt, f.Origin.SpecHash
	if f.PID != 0 {
		e.pid = f.PID
	}
	e.life.Found(f.Presence, true, f.Exit)
	l.setKept(f.ID, true)
}

func (l *Loop) entry(id string) *entry {
	e := l.tasks[id]
	if e == nil {
		e = &entry{id: id}
		l.tasks[id] = e
		l.setKept(container.ID(id, 0), true)
	}
	return e
}

func (l *Loop) take(v *typesv1.Version) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastTaken = proto.CloneOf(v)
}
