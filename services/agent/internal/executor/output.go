package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	tasksv1 "github.com/containerd/containerd/api/services/tasks/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/keeper"
	"github.com/shoalproject/shoal/services/agent/internal/logger"
)

// The journal's fields are those of Docker's driver where it has them.
const (
	fieldID, fieldFullID, fieldName = "CONTAINER_ID", "CONTAINER_ID_FULL", "CONTAINER_NAME"
	fieldTag, fieldImage            = "CONTAINER_TAG", "IMAGE_NAME"
	fieldTask, fieldService         = "SHOAL_TASK_ID", "SHOAL_SERVICE"
	fieldIdentifier                 = "SYSLOG_IDENTIFIER"
)

// logFolder is where a container's output goes: a folder an attempt.
func (e *Executor) logFolder(id string) string { return filepath.Join(e.cfg.Logs, id) }

// pipes are those of a container's output whose input is kept open: the shim has no input for one whose output goes to a
// program that it starts.
func (e *Executor) pipes(id string) []string {
	return []string{filepath.Join(e.cfg.Pins, id, "stdout"), filepath.Join(e.cfg.Pins, id, "stderr")}
}

// outputOf is a container's output as its keeper sees it.
func (e *Executor) outputOf(id string, pid int64) keeper.Output {
	o := keeper.Output{Program: e.cfg.Logger, Folder: e.logFolder(id), PID: pid}
	if exists(e.input(id)) {
		o.Pipes = e.pipes(id)
	}
	return o
}

// KeepOutput keeps a logger beside a running container until it has ended.
func (e *Executor) KeepOutput(ctx context.Context, id string) error {
	if logger.ReadSettings(e.logFolder(id)).Driver == logger.None {
		return nil
	}
	pid, err := e.pid(ctx, id)
	if err != nil {
		return err
	}
	return keeper.Keep(ctx, e.log, e.outputOf(id, int64(pid)), func(ctx context.Context) bool {
		now, err := e.pid(ctx, id)
		return err == nil && now == pid || errs.Is(err, errs.Unavailable)
	})
}

func (e *Executor) pid(ctx context.Context, id string) (int, error) {
	ctx, cancel := e.call(ctx)
	defer cancel()
	return e.pidOf(ctx, id)
}

// beginOutput starts the logger of a container whose shim does not.
func (e *Executor) beginOutput(id string) (release func(), err error) {
	if !exists(e.input(id)) || logger.ReadSettings(e.logFolder(id)).Driver == logger.None {
		return func() {}, nil
	}
	return keeper.Begin(e.outputOf(id, 0))
}

// settle writes down how the output of a container is kept, for its logger and for who reads it.
func (e *Executor) settle(c container.Spec) error {
	name := fmt.Sprintf("%s.%d", c.Log.Service, c.Origin.Slot)
	s := logger.Settings{
		Driver: c.Log.Driver, Options: c.Log.Options, TTY: c.Container.GetTty(),
		Fields: map[string]string{
			fieldID: container.ShortID(c.ID), fieldFullID: c.ID, fieldName: name + "." + c.Origin.Task, fieldTag: name,
			fieldImage: c.Container.GetImage(), fieldTask: c.Origin.Task, fieldService: c.Log.Service, fieldIdentifier: name,
		},
	}
	if err := s.Write(e.logFolder(c.ID)); err != nil {
		return fmt.Errorf("make the folder of the container's output: %w", err)
	}
	return nil
}

// output says where the container's output goes. The shim starts a logger for it: nobody else holds the pipes, so nobody
// else's end is noticed.
func (e *Executor) output(id string, req *tasksv1.CreateTaskRequest) {
	s := logger.ReadSettings(e.logFolder(id))
	req.Terminal = s.TTY
	if exists(e.input(id)) {
		req.Stdin, req.Stdout, req.Stderr = e.input(id), e.pipes(id)[0], e.pipes(id)[1]
		if s.Driver == logger.None {
			req.Stdout, req.Stderr = "file://"+os.DevNull, "file://"+os.DevNull
		}
		return
	}
	if s.Driver == logger.None {
		return // containerd gives it /dev/null
	}
	to := url.URL{Scheme: "binary", Path: e.cfg.Logger, RawQuery: url.Values{"logger": {e.logFolder(id)}}.Encode()}
	req.Stdout = to.String()
	if !s.TTY {
		req.Stderr = to.String()
	}
}

// SweepLogs removes the output of containers that nobody keeps.
func (e *Executor) SweepLogs(_ context.Context, keep func(id string) bool) error {
	folders, err := os.ReadDir(e.cfg.Logs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list logs: %w", err)
	}
	var failed []error
	for _, entry := range folders {
		id := strings.TrimSuffix(entry.Name(), ".log") // a file of an earlier version
		if _, _, ours := container.TaskOf(id); ours && !keep(id) {
			failed = append(failed, os.RemoveAll(filepath.Join(e.cfg.Logs, entry.Name())))
		}
	}
	return errors.Join(failed...)
}
