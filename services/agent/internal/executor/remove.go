package executor

import (
	"context"
	"strconv"
	"strings"
	"syscall"

	tasksv1 "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/failpoint"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/kernel"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// Remove ends the container if it runs, as stop says, and deletes it with its file system. The exit is nil if there was
// no process. Removing what is not there is no error.
func (e *Executor) Remove(ctx context.Context, id string, stop container.Stop) (*task.Exit, error) {
	if stop.Grace > 0 {
		if err := e.ask(ctx, id, stop); err != nil {
			return nil, err
		}
	}
	ctx, cancel := e.call(ctx)
	defer cancel()
	return e.erase(ctx, id)
}

// ask sends the stop signal and waits for the end, at most for the grace.
func (e *Executor) ask(ctx context.Context, id string, stop container.Stop) error {
	call, cancel := e.call(ctx)
	defer cancel()
	name := stop.Signal
	if name == "" {
		if c, err := e.client.ContainerService().Get(call, id); err == nil {
			name = c.Labels[labelSignal]
		}
	}
	signal, err := parseSignal(name)
	if err != nil {
		e.log.Warn("unknown stop signal, using SIGTERM", "container", id, "signal", name)
		signal = syscall.SIGTERM
	}
	_, err = e.client.TaskService().Kill(call, &tasksv1.KillRequest{ContainerID: id, Signal: uint32(signal)})
	if err = e.failure("signal the process", err); errs.Is(err, errs.Unavailable) {
		return err
	}
	if err != nil {
		return nil // it has ended, or never ran: erase finds out
	}
	grace, done := context.WithTimeout(ctx, stop.Grace)
	defer done()
	if _, err := e.Wait(grace, id); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return nil
}

// erase kills what runs and deletes task, container and snapshot, in this order: each refers to the next.
func (e *Executor) erase(ctx context.Context, id string) (*task.Exit, error) {
	e.unkeep(id)
	exit, err := e.kill(ctx, id)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	delete(e.bundles, id)
	e.mu.Unlock()
	_ = failpoint.Hit("agent.process-deleted")
	err = e.failure("delete container "+id, e.client.ContainerService().Delete(ctx, id))
	if err != nil && !errs.Is(err, errs.NotFound) {
		return nil, err
	}
	_ = failpoint.Hit("agent.container-deleted")
	err = e.failure("delete the file system of "+id, e.client.SnapshotService(e.cfg.Snapshotter).Remove(ctx, id))
	if err != nil && !errs.Is(err, errs.NotFound) {
		return nil, err
	}
	return exit, e.volumes.Release(id)
}

func (e *Executor) kill(ctx context.Context, id string) (*task.Exit, error) {
	tasks := e.client.TaskService()
	_, err := tasks.Kill(ctx, &tasksv1.KillRequest{ContainerID: id, Signal: uint32(syscall.SIGKILL), All: true})
	err = e.failure("kill container "+id, err)
	switch {
	case errs.Is(err, errs.Unavailable):
		return nil, err
	case err == nil:
		// Only a process that has ended can be deleted. An error here is told by Delete in better words.
		_, _ = tasks.Wait(ctx, &tasksv1.WaitRequest{ContainerID: id})
	}
	oom := kernel.OOMKilled(id) // before the cgroup goes
	r, err := tasks.Delete(ctx, &tasksv1.DeleteTaskRequest{ContainerID: id})
	if err = e.failure("delete the process of "+id, err); err == nil {
		if r.GetExitedAt() == nil || r.GetPid() == 0 {
			return nil, nil //nolint:nilnil // there was no process, and so there is no exit
		}
		return &task.Exit{Code: int32(r.GetExitStatus()), OOM: oom}, nil
	}
	if errs.Is(err, errs.NotFound) {
		return nil, nil //nolint:nilnil // as above
	}
	return nil, err
}

// Sweep removes what is left of ids that nobody keeps: file systems that never got a container.
func (e *Executor) Sweep(ctx context.Context, keep func(id string) bool) error {
	ctx, cancel := e.call(ctx)
	defer cancel()
	snapshotter := e.client.SnapshotService(e.cfg.Snapshotter)
	var stray []string
	err := snapshotter.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if !keep(info.Name) {
			stray = append(stray, info.Name)
		}
		return nil
	}, e.ours())
	if err != nil {
		return e.failure("list file systems", err)
	}
	for _, id := range stray {
		if _, err := e.erase(ctx, id); err != nil {
			return err
		}
	}
	return e.volumes.Sweep(keep)
}

// parseSignal takes a name with or without SIG, a number, or RTMIN+n; empty is SIGTERM.
func parseSignal(name string) (syscall.Signal, error) {
	if name == "" {
		return syscall.SIGTERM, nil
	}
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	full := strings.ToUpper(name)
	if !strings.HasPrefix(full, "SIG") {
		full = "SIG" + full
	}
	if offset, ok := strings.CutPrefix(full, "SIGRTMIN+"); ok {
		if n, err := strconv.Atoi(offset); err == nil && n >= 0 && n <= 30 {
			return syscall.Signal(34 + n), nil // as the C library counts: it keeps 32 and 33 for itself
		}
	}
	if s := unix.SignalNum(full); s != 0 {
		return s, nil
	}
	return 0, errs.New(errs.Invalid, "no signal is called %q", name)
}
