package agenttest

import (
	"context"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

type origin = container.Origin

// handle is one agent process's hold on a host.
type handle struct {
	host *Host
	life int
	dead chan struct{}
}

// alive needs the host's lock.
func (o handle) alive() error {
	if o.life != o.host.life {
		return errs.New(errs.Unavailable, "the agent process has ended")
	}
	return nil
}

// reach needs the host's lock: the process lives and the runtime answers.
func (o handle) reach() error {
	if err := o.alive(); err != nil {
		return err
	}
	if o.host.away {
		return errs.New(errs.Unavailable, "the container runtime does not answer")
	}
	return nil
}

// with calls f under the host's lock.
func (o handle) with(f func() error) error {
	o.host.mu.Lock()
	defer o.host.mu.Unlock()
	return f()
}

// wait lets virtual time pass, and ends early with the process.
func (o handle) wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-o.dead:
		return errs.New(errs.Unavailable, "the agent process has ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Executor runs hollow containers.
type Executor struct{ handle }

// List returns all containers.
func (e *Executor) List(context.Context) (found []container.Found, err error) {
	err = e.with(func() error {
		for id, c := range e.host.containers {
			f := container.Found{ID: id, Origin: c.origin, Presence: c.presence, IDs: container.IDs{First: c.FirstID}}
			switch c.presence {
			case task.Running:
				f.PID = c.PID
			case task.Ended:
				f.Exit = &task.Exit{Code: c.ExitCode}
			case task.Absent, task.Made:
			}
			found = append(found, f)
		}
		return e.reach()
	})
	return found, err
}

// Prepare makes a container as its image behaves.
func (e *Executor) Prepare(ctx context.Context, s container.Spec) error {
	image := s.Container.GetImage()
	var b Behaviour
	err := e.with(func() error {
		named, ok := e.host.images[image]
		if b = named; !ok {
			b = e.host.all
		}
		return e.reach()
	})
	if err != nil {
		return err
	}
	switch login := s.Pull.Login; {
	case b.Login == "":
	case login.Awaited:
		return errs.New(errs.Unavailable, "waits for the login of its registry")
	case login.Username+":"+login.Password != b.Login:
		return errs.New(errs.Precondition, "pull image %q: its registry does not accept the login", image)
	}
	if b.Progress != "" && s.Pull.Tell != nil {
		s.Pull.Tell(b.Progress)
	}
	if err := e.wait(ctx, b.PrepareDelay); err != nil {
		return err
	}
	if b.PullError != "" {
		return errs.New(errs.NotFound, "pull image %q: %s", image, b.PullError)
	}
	return e.with(func() error {
		if err := e.reach(); err != nil {
			return err
		}
		e.host.shelve(s)
		e.host.end(e.host.containers[s.ID], 137)
		e.host.containers[s.ID] = &hollow{
			Container: Container{ID: s.ID, TaskID: s.Origin.Task, Image: image, Hostname: s.Hostname, Spec: s.Container, FirstID: s.IDs.First},
			spec:      b, presence: task.Made, origin: s.Origin,
		}
		if e.host.made != nil {
			e.host.made(s.Origin.Task)
		}
		return nil
	})
}

// Start starts a made container.
func (e *Executor) Start(ctx context.Context, id string) (pid int64, err error) {
	var c *hollow
	err = e.with(func() error {
		if c = e.host.containers[id]; c == nil {
			return errs.New(errs.NotFound, "no container %s", id)
		}
		return e.reach()
	})
	if err != nil {
		return 0, err
	}
	if err := e.wait(ctx, c.spec.StartDelay); err != nil {
		return 0, err
	}
	err = e.with(func() error {
		if err := e.reach(); err != nil {
			return err
		}
		if c.presence == task.Running {
			pid = c.PID
			return nil
		}
		if c.spec.StartError != "" {
			return errs.New(errs.Internal, "start the process: %s", c.spec.StartError)
		}
		e.host.starts++
		pid = int64(1000 + e.host.starts)
		c.presence, c.Running, c.PID, c.ended = task.Running, true, pid, make(chan struct{})
		if c.spec.RunFor > 0 {
			ended := c.ended
			time.AfterFunc(c.spec.RunFor, func() { e.expire(c, ended) })
		}
		return nil
	})
	return pid, err
}

// expire ends a process by itself, whoever is there to see it.
func (e *Executor) expire(c *hollow, ended chan struct{}) {
	_ = e.with(func() error {
		if c.ended == ended {
			e.host.end(c, c.spec.ExitCode)
		}
		return nil
	})
}

// Wait blocks until the process ends.
func (e *Executor) Wait(ctx context.Context, id string) (task.Exit, error) {
	var ended chan struct{}
	err := e.with(func() error {
		c := e.host.containers[id]
		if c == nil || c.ended == nil {
			return errs.New(errs.NotFound, "container %s has no process", id)
		}
		ended = c.ended
		return e.reach()
	})
	if err != nil {
		return task.Exit{}, err
	}
	select {
	case <-ended:
	case <-e.dead:
		return task.Exit{}, errs.New(errs.Unavailable, "the agent process has ended")
	case <-ctx.Done():
		return task.Exit{}, ctx.Err()
	}
	var exit task.Exit
	err = e.with(func() error {
		c := e.host.containers[id]
		if c == nil {
			return errs.New(errs.NotFound, "container %s is gone", id)
		}
		exit.Code = c.ExitCode
		return e.alive()
	})
	return exit, err
}

// Remove ends and deletes.
func (e *Executor) Remove(ctx context.Context, id string, stop container.Stop) (exit *task.Exit, err error) {
	var running bool
	var delay time.Duration
	err = e.with(func() error {
		if c := e.host.containers[id]; c != nil {
			running, delay = c.presence == task.Running, c.spec.StopDelay
		}
		return e.reach()
	})
	if err != nil {
		return nil, err
	}
	code := int32(0)
	if delay > stop.Grace || stop.Grace == 0 {
		delay, code = stop.Grace, 137
	}
	if running {
		if err := e.wait(ctx, delay); err != nil {
			return nil, err
		}
	}
	err = e.with(func() error {
		if err := e.reach(); err != nil {
			return err
		}
		c := e.host.containers[id]
		if c == nil {
			return nil
		}
		e.host.end(c, code)
		if c.ended != nil {
			exit = &task.Exit{Code: c.ExitCode}
		}
		delete(e.host.containers, id)
		return nil
	})
	return exit, err
}

// Sweep finds nothing: a hollow container leaves nothing behind.
func (e *Executor) Sweep(context.Context, func(id string) bool) error {
	return e.with(e.reach)
}

// KeepOutput has nothing to do: what a hollow container writes needs nobody.
func (e *Executor) KeepOutput(context.Context, string) error { return e.with(e.reach) }

// SweepLogs forgets the output that nobody keeps.
func (e *Executor) SweepLogs(_ context.Context, keep func(id string) bool) error {
	return e.with(func() error {
		for id := range e.host.logs {
			if !keep(id) {
				delete(e.host.logs, id)
			}
		}
		return e.reach()
	})
}

// Network wires nothing, and knows for whom.
type Network struct{ handle }

// Make notes that the container has a namespace.
func (n *Network) Make(_ context.Context, w container.Wiring) (box container.Sandbox, err error) {
	err = n.with(func() error {
		if err := n.alive(); err != nil {
			return err
		}
		n.host.wired[w.ID] = w
		return nil
	})
	return container.Sandbox{NetNS: "/hollow/" + w.ID}, err
}

// Remove notes that it has none.
func (n *Network) Remove(_ context.Context, id string) error {
	return n.with(func() error {
		if err := n.alive(); err != nil {
			return err
		}
		delete(n.host.wired, id)
		return nil
	})
}

// Sweep removes what nobody keeps.
func (n *Network) Sweep(_ context.Context, keep func(id string) bool) error {
	return n.with(func() error {
		if err := n.alive(); err != nil {
			return err
		}
		for id := range n.host.wired {
			if !keep(id) {
				delete(n.host.wired, id)
			}
		}
		return nil
	})
}
