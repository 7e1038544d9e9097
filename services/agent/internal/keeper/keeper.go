// Package keeper sees to it that a running container always has a logger (package logger).
//
// A logger is started by the container's shim and needs no agent. But somebody must go on when it is killed: without a reader
// the container's next write fails, or waits for ever. So while there is an agent it holds the read ends of the container's
// pipes, which is all that it takes to keep a write from failing, and starts another logger on them when one has died. A
// container whose input is kept open has pipes with names, since its shim starts no logger for it; then the agent starts the
// first one, too. It must never read from a pipe, nor end a logger. Keep is called once a container; it holds three files.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
)

const (
	// A logger that dies at once again is started again: soon at first, then less often.
	againFirst, againLast = 50 * time.Millisecond, 5 * time.Second
	// lasting is how long one must have lived for its death to count as the first.
	lasting = 10 * time.Second
	// patience is the longest wait for one to be ready.
	patience = 5 * time.Second
)

// Output is a container's.
type Output struct {
	// Program is the logger, Folder what it writes to.
	Program, Folder string
	// PID is the container's process.
	PID int64
	// Pipes are the names of standard output and error; empty: the shim has made pipes without.
	Pipes []string
}

// Keep holds the pipes of a running container and keeps a logger on them until ctx ends, or a logger has ended and lives says
// that the container has, too.
func Keep(ctx context.Context, log *slog.Logger, o Output, lives func(ctx context.Context) bool) error {
	logger := find(o)
	defer func() { logger.close() }()
	held, err := hold(o, logger)
	if err != nil {
		return fmt.Errorf("hold the pipes of a container's output: %w", err)
	}
	defer closeAll(held)
	for pause := againFirst; ; pause = min(2*pause, againLast) {
		began := time.Now()
		if logger != nil {
			if err := logger.wait(ctx); err != nil {
				return err
			}
		}
		if time.Since(began) > lasting {
			pause = againFirst
		}
		if !lives(ctx) {
			return ctx.Err()
		}
		if logger != nil {
			log.Warn("the logger of a container has died, starting another", "folder", o.Folder, "pid", logger.pid)
		}
		logger.close()
		if logger, err = spawn(o, held); err != nil {
			log.Error("a container has no logger, will retry: it may have to wait", "folder", o.Folder, "error", err)
		}
		if err != nil || pause > againFirst {
			if err := run.Sleep(ctx, pause); err != nil {
				return err
			}
		}
	}
}

// Begin starts the logger of a container that has not begun, on its named pipes. They do not end before release is called,
// when the shim has opened them.
func Begin(o Output) (release func(), err error) {
	held, err := hold(o, nil)
	if err != nil {
		return nil, err
	}
	defer closeAll(held)
	var ends []*os.File
	release = func() { closeAll(ends) }
	for _, name := range o.Pipes {
		end, err := os.OpenFile(name, os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			release()
			return nil, err
		}
		ends = append(ends, end)
	}
	begun := find(o)
	if begun == nil { // else an earlier try has begun it
		if begun, err = spawn(o, held); err != nil {
			release()
			return nil, err
		}
	}
	begun.close()
	return release, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // nothing was written
		}
	}
}

// hold opens the read ends: by their names, or those of the logger, or, if it has died already, by the container's own
// write ends.
func hold(o Output, logger *process) ([]*os.File, error) {
	names, flags := o.Pipes, os.O_RDONLY|unix.O_NONBLOCK
	if len(names) == 0 {
		names, flags = []string{fmt.Sprintf("/proc/%d/fd/1", o.PID), fmt.Sprintf("/proc/%d/fd/2", o.PID)}, os.O_RDONLY
		if logger != nil {
			names = []string{fmt.Sprintf("/proc/%d/fd/3", logger.pid), fmt.Sprintf("/proc/%d/fd/4", logger.pid)}
		}
	}
	held, some := make([]*os.File, len(names)), false
	for i, name := range names {
		if to, err := os.Readlink(name); len(o.Pipes) == 0 && (err != nil || !strings.HasPrefix(to, "pipe:")) {
			continue // it has put something else there, or has a terminal
		}
		f, err := os.OpenFile(name, flags, 0)
		if err != nil {
			closeAll(held)
			return nil, err
		}
		held[i], some = f, true
	}
	if !some {
		return nil, errors.New("there is none")
	}
	return held, nil
}

// spawn starts a logger on the pipes and waits until it is ready. Its life is its own; it is taken away when it has died.
func spawn(o Output, pipes []*os.File) (*process, error) {
	ready, tell, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	cmd := exec.CommandContext(context.Background(), o.Program, "logger", o.Folder) // no end of ours is its
	cmd.ExtraFiles = append(append([]*os.File{}, pipes...), tell)
	fd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &fd}
	err = cmd.Start()
	_ = tell.Close() // its copy counts
	if err != nil {
		return nil, fmt.Errorf("start a logger: %w", err)
	}
	// Nobody needs the result, but without a wait a child that has died stays in the table of processes.
	run.Async(context.Background(), func(context.Context) (struct{}, error) { return struct{}{}, cmd.Wait() })
	_ = ready.SetReadDeadline(time.Now().Add(patience)) // a pipe takes one
	_, _ = ready.Read(make([]byte, 1))                  // returns when it is ready, dead, or hangs: then it is watched like any other
	if err := unix.SetNonblock(fd, true); err != nil {  // or it can't be polled
		return nil, fmt.Errorf("watch a logger: %w", err)
	}
	return &process{cmd.Process.Pid, os.NewFile(uintptr(fd), "logger")}, nil
}
