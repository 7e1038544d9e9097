package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/failpoint"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/look"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// do takes a step, or hands it to a worker who tells the loop when it is done.
func (l *Loop) do(ctx context.Context, e *entry, a task.Action) {
	switch a {
	case task.Prepare:
		l.prepare(ctx, e)
	case task.Start:
		l.start(ctx, e)
	case task.Stop:
		c := e.assigned.GetSpec().GetContainer()
		l.remove(ctx, e, container.Stop{Signal: c.GetStopSignal(), Grace: graceOf(e), Before: look.Args(c.GetPreStop().GetCommand())})
	case task.Clean:
		l.remove(ctx, e, container.Stop{})
	case task.Cancel:
		if e.cancel != nil {
			e.cancel()
		}
	case task.ArmBound:
		l.after(ctx, stopBound, func(ctx context.Context) {
			e.life.BoundOver()
			l.step(ctx, e)
		})
	case task.ArmDrain:
		l.after(ctx, e.assigned.GetSpec().GetContainer().GetDrainTime().AsDuration(), func(ctx context.Context) {
			e.life.DrainOver()
			l.step(ctx, e)
		})
	case task.None, task.Forget:
	}
}

func graceOf(e *entry) time.Duration {
	if grace := e.assigned.GetSpec().GetContainer().GetStopGracePeriod(); grace != nil {
		return grace.AsDuration()
	}
	return defaultGrace
}

func (l *Loop) prepare(ctx context.Context, e *entry) {
	spec, err := l.spec(e)
	var wiring container.Wiring
	if err == nil {
		wiring, err = l.wiring(e, spec)
	}
	if err != nil {
		l.settle(ctx, e, err, nil)
		return
	}
	files, err := l.files(e, spec)
	if err != nil {
		l.settle(ctx, e, err, nil)
		return
	}
	l.setKept(spec.ID, true)
	own, cancel := context.WithCancel(ctx)
	e.cancel = cancel
	spec.Pull.Tell = func(message string) {
		l.post(own, func(ctx context.Context) {
			e.life.Progress(message)
			l.step(ctx, e)
		})
	}
	guarded := e.assigned.GetGuarded()
	l.workers.Go(own, "prepare", func(own context.Context) error {
		err := failpoint.Hit("agent.prepare")
		if err == nil {
			spec.Sandbox, err = l.connect(own, spec.Origin.Service, wiring)
		}
		if err == nil {
			err = failpoint.Hit("agent.network-made")
		}
		if err == nil {
			spec.Files, err = l.Files.Make(own, spec.ID, files)
		}
		if err == nil {
			err = l.wire(own, wiring, guarded)
		}
		if err == nil {
			err = l.Executor.Prepare(own, spec)
		}
		if err == nil {
			err = failpoint.Hit("agent.prepared")
		}
		l.post(ctx, func(ctx context.Context) {
			cancel()
			e.cancel = nil
			l.settle(ctx, e, err, e.life.Prepared)
			l.step(ctx, e)
		})
		return nil
	})
}

// connect makes a container's network when it is its service's turn.
func (l *Loop) connect(ctx context.Context, service string, w container.Wiring) (container.Sandbox, error) {
	leave, err := l.gate.Pass(ctx, service)
	if err != nil {
		return container.Sandbox{}, err
	}
	defer leave()
	return l.Network.Make(ctx, w)
}

// wire has the meshproxy make the tables of a container that is on networks, so that its first call finds them; and of one whose
// service names its callers, which does not run before it is closed to all others. Any other is only handed over: its service may
// name somebody while it runs.
func (l *Loop) wire(ctx context.Context, w container.Wiring, guarded bool) error {
	if l.Mesh == nil || len(w.Links) == 0 {
		return nil
	}
	if len(w.Links) < 2 && !guarded {
		if err := l.Mesh.Offer(w.ID); err != nil { // a meshproxy that comes later is handed all
			l.Log.Debug("container not handed to the meshproxy", "container", w.ID, "error", err)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wireBound)
	defer cancel()
	err := l.Mesh.Wire(ctx, w.ID)
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return nil
	case guarded:
		return errs.New(errs.Unavailable, "waits for this machine's meshproxy, which lets in only who may call it: %w", err)
	}
	l.Log.Warn("container runs before its virtual addresses answer", "container", w.ID, "error", err)
	return nil
}

func (l *Loop) start(ctx context.Context, e *entry) {
	id, c := container.ID(e.id, e.attempt), e.assigned.GetSpec().GetContainer()
	l.workers.Go(ctx, "start", func(ctx context.Context) error {
		_ = failpoint.Hit("agent.start")
		pid, err := l.Executor.Start(ctx, id)
		_ = failpoint.Hit("agent.started") // it runs, and nobody has been told
		var p *probes
		if err == nil {
			p, err = l.probesOf(ctx, c)
		}
		open := err != nil || !p.none() || l.opens(ctx, id, listenSoon)
		l.post(ctx, func(ctx context.Context) {
			if err == nil {
				e.pid, e.probes, e.looks = pid, p, nil
				e.life.Checked(p.health != nil, p.ready != nil)
				if !open {
					e.life.Opening()
				}
			}
			l.settle(ctx, e, err, e.life.Started)
			l.step(ctx, e)
		})
		return nil
	})
}

// settle answers a step that makes something: done, to be tried again, or impossible.
func (l *Loop) settle(ctx context.Context, e *entry, err error, done func()) {
	switch {
	case err == nil:
		e.retries = 0
		done()
	case errs.Is(err, errs.Unavailable), errors.Is(err, context.Canceled):
		l.hold(ctx, e, err)
	default:
		e.life.Failed(err.Error())
	}
}

func (l *Loop) hold(ctx context.Context, e *entry, err error) {
	e.life.Held(err.Error())
	pause := min(retryFirst<<min(e.retries, 10), retryLast)
	e.retries++
	l.after(ctx, pause, func(ctx context.Context) {
		e.life.RetryDue()
		l.step(ctx, e)
	})
}

// remove ends and deletes. It never gives up: what can't be removed now is tried again.
func (l *Loop) remove(ctx context.Context, e *entry, stop container.Stop) {
	id := container.ID(e.id, e.attempt)
	e.unattend()
	l.workers.Go(ctx, "remove", func(ctx context.Context) error {
		_ = failpoint.Hit("agent.stop")
		stop.Grace = l.before(ctx, id, stop)
		exit, err := l.Executor.Remove(ctx, id, stop)
		_ = failpoint.Hit("agent.removed") // nothing of it is there, and its exit code is known to this process alone
		if err == nil && l.Mesh != nil {
			if err := l.Mesh.Unwire(ctx, id); err != nil { // it has none, or will see that the task is gone
				l.Log.Debug("meshproxy was not told of an end", "container", id, "error", err)
			}
		}
		if err == nil { // the namespace last: the container's last packets still need it
			err = l.Network.Remove(ctx, id)
		}
		_ = failpoint.Hit("agent.network-removed")
		if err == nil {
			err = l.Files.Remove(ctx, id)
		}
		l.post(ctx, func(ctx context.Context) {
			if err != nil {
				l.hold(ctx, e, err)
			} else {
				e.retries = 0
				l.IDs.Free(id)
				e.life.Removed(exit)
			}
			l.step(ctx, e)
		})
		return nil
	})
}

// waitFor tells the loop when a container has ended.
func (l *Loop) waitFor(ctx context.Context, e *entry) {
	id := container.ID(e.id, e.attempt)
	l.workers.Go(ctx, "wait", func(ctx context.Context) error {
		exit, err := l.Executor.Wait(ctx, id)
		if err != nil && !errs.Is(err, errs.NotFound) {
			if run.Sleep(ctx, retryLast) == nil {
				l.post(ctx, func(ctx context.Context) { l.ended(ctx, e, nil, false) })
			}
			return nil
		}
		l.withdraw(ctx, e.id)
		l.post(ctx, func(ctx context.Context) { l.ended(ctx, e, &exit, err != nil) })
		return nil
	})
}

// ended is the loop's half of waitFor. Without an exit the wait itself has failed and is begun anew.
func (l *Loop) ended(ctx context.Context, e *entry, exit *task.Exit, vanished bool) {
	e.watched = false
	if vanished || exit != nil {
		e.unattend()
	}
	switch {
	case vanished:
		e.life.Vanished()
	case exit != nil:
		e.life.Exited(*exit)
	}
	l.step(ctx, e)
}

// withdraw tells this machine's meshproxy at once, before the cluster knows. It does its best: the cluster's own way is
// slower, not less sure.
func (l *Loop) withdraw(ctx context.Context, taskID string) {
	if l.Mesh == nil {
		return
	}
	l.workers.Go(ctx, "withdraw", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, withdrawBound)
		defer cancel()
		if err := l.Mesh.Withdraw(ctx, taskID); err != nil {
			l.Log.Debug("meshproxy was not told of an end", "task", taskID, "error", err)
		}
		return nil
	})
}
