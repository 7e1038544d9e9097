package agenttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// output is what a hollow container has written.
type output struct {
	lines []*logsv1.LogLine
}

// look is how often a follower looks for more: in virtual time it costs nothing.
const look = 20 * time.Millisecond

// Write lets a container write a line, whoever is there to read it. Its time is at.
func (h *Host) Write(id string, at time.Time, s logsv1.LogStream, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.logs[id]
	if o == nil {
		o = &output{}
		h.logs[id] = o
	}
	o.lines = append(o.lines, &logsv1.LogLine{At: timestamppb.New(at), Stream: s, Text: []byte(text)})
}

// ReadLog reads the task's first attempt.
func (e *Executor) ReadLog(ctx context.Context, taskID string, req *logsv1.ReadLogRequest, live func(context.Context) bool, put func(*logsv1.ReadLogResponse) error) error {
	from := 0
	if req.GetAfter() != "" {
		n, err := strconv.Atoi(req.GetAfter())
		if err != nil || n < 0 {
			return errs.New(errs.Invalid, "%q is no position in a log", req.GetAfter())
		}
		from = n
	}
	if o := req.GetOptions(); o.GetFollow() && req.GetAfter() == "" && o.Tail != nil {
		err := e.with(func() error {
			if had := e.host.logs[container.ID(taskID, 0)]; had != nil {
				from = max(0, len(had.lines)-int(o.GetTail()))
			}
			return e.reach()
		})
		if err != nil {
			return err
		}
		if err := put(&logsv1.ReadLogResponse{Position: strconv.Itoa(from)}); err != nil {
			return err
		}
	}
	for first := true; ; first = false {
		var lines []*logsv1.LogLine
		kept := false
		err := e.with(func() error {
			if o := e.host.logs[container.ID(taskID, 0)]; o != nil {
				kept = true
				lines = o.lines[min(from, len(o.lines)):]
			}
			return e.reach()
		})
		if err != nil {
			return err
		}
		more := live(ctx)
		if !kept && !more && first {
			return errs.New(errs.NotFound, "nothing is kept of the task's output")
		}
		from += len(lines)
		wanted := choose(lines, req.GetOptions(), first && req.GetAfter() == "")
		if len(wanted) > 0 {
			if err := put(&logsv1.ReadLogResponse{Lines: wanted, Position: strconv.Itoa(from)}); err != nil {
				return err
			}
		}
		if !req.GetOptions().GetFollow() || !more && len(lines) == 0 {
			return nil
		}
		if err := e.wait(ctx, look); err != nil {
			return err
		}
	}
}

func choose(lines []*logsv1.LogLine, o *logsv1.LogOptions, tail bool) (out []*logsv1.LogLine) {
	for _, l := range lines {
		at := l.GetAt().AsTime()
		if o.GetSince() != nil && at.Before(o.GetSince().AsTime()) || o.GetUntil() != nil && !at.Before(o.GetUntil().AsTime()) ||
			len(o.GetStreams()) == 1 && o.GetStreams()[0] != l.GetStream() {
			continue
		}
		out = append(out, l)
	}
	if tail && o != nil && o.Tail != nil {
		out = out[max(0, len(out)-int(o.GetTail())):]
	}
	return out
}

// running needs the host's lock.
func (e *Executor) running(id string) (*hollow, error) {
	if err := e.reach(); err != nil {
		return nil, err
	}
	c := e.host.containers[id]
	if c == nil || c.presence != task.Running {
		return nil, errs.New(errs.Precondition, "the container does not run")
	}
	return c, nil
}

// Usage is that of a container that does nothing.
func (e *Executor) Usage(_ context.Context, id string) (u *logsv1.Usage, err error) {
	err = e.with(func() error {
		_, err := e.running(id)
		if err == nil {
			u = &logsv1.Usage{At: timestamppb.Now(), Cpu: durationpb.New(0), Memory: 1 << 20, Pids: 1, MachineMemory: 8 << 30}
		}
		return err
	})
	return u, err
}

// Processes are one.
func (e *Executor) Processes(_ context.Context, id string) (list []*logsv1.Process, err error) {
	err = e.with(func() error {
		c, err := e.running(id)
		if err == nil {
			list = []*logsv1.Process{{Pid: c.PID, Command: c.Image, Started: timestamppb.Now(), Cpu: durationpb.New(0)}}
		}
		return err
	})
	return list, err
}

// Exec has four programs that last: echo, cat, which copies its input, sleep, which takes seconds, and exit, which takes a
// code. They end with the container, and after a signal with 128 and its number. "nothing" is a program that is not there, and
// any other is brief.
func (e *Executor) Exec(ctx context.Context, id string, c container.Command, started func() error) (int32, error) {
	var ended chan struct{}
	err := e.with(func() error {
		one, err := e.running(id)
		if err == nil {
			ended = one.ended
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	program, lasts := programs()[c.Args[0]]
	if c.Args[0] == "nothing" {
		return 0, errs.New(errs.NotFound, "exec: %q: executable file not found in $PATH", c.Args[0])
	}
	if !lasts {
		return e.brief(ctx, id, c, started)
	}
	if c.Detach {
		return 0, errors.Join(e.detach(id), started())
	}
	over, err := e.begin(id)
	if err != nil {
		return 0, err
	}
	if err := started(); err != nil {
		over()
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := run.Async(ctx, func(ctx context.Context) (int32, error) { return program(ctx, c) })
	for {
		select {
		case <-e.dead: // the command does not hear of it
			return 0, errs.New(errs.Unavailable, "the agent process has ended")
		case r := <-done:
			over()
			return r.Value, r.Err
		case <-ended:
			return 137, nil
		case s := <-c.Signals:
			over()
			return 128 + int32(s), nil
		case <-c.Sizes:
		case <-ctx.Done():
			over()
			return 0, ctx.Err()
		}
	}
}

// detached is the life of commands that run on by themselves.
const detached = -1

func (e *Executor) detach(id string) error {
	return e.with(func() error {
		c, err := e.running(id)
		if err == nil {
			if c.commands == nil {
				c.commands = map[int]int{}
			}
			c.commands[detached]++
		}
		return err
	})
}

// begin notes that a command runs, until over is called by a process that lives, or its container ends.
func (e *Executor) begin(id string) (over func(), err error) {
	err = e.with(func() error {
		c, err := e.running(id)
		if err != nil {
			return err
		}
		if c.commands == nil {
			c.commands = map[int]int{}
		}
		c.commands[e.life]++
		over = func() {
			_ = e.with(func() error {
				if e.alive() == nil {
					c.commands[e.life]--
				}
				return nil
			})
		}
		return nil
	})
	return over, err
}

// EndCommands ends those of earlier lives.
func (e *Executor) EndCommands(_ context.Context, id string) error {
	return e.with(func() error {
		if c := e.host.containers[id]; c != nil {
			maps.DeleteFunc(c.commands, func(life, _ int) bool { return life != e.life && life != detached })
		}
		return e.reach()
	})
}

// Running is how many commands of people run in the machine's containers now, `look` and brief ones apart.
func (h *Host) Running() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.containers {
		if c.presence != task.Running {
			continue
		}
		for _, of := range c.commands {
			n += of
		}
	}
	return n
}

func programs() map[string]func(context.Context, container.Command) (int32, error) {
	return map[string]func(context.Context, container.Command) (int32, error){
		"echo": func(_ context.Context, c container.Command) (int32, error) {
			_, err := fmt.Fprintln(c.Stdout, strings.Join(c.Args[1:], " "))
			return 0, err
		},
		"cat": func(_ context.Context, c container.Command) (int32, error) {
			if c.Stdin == nil {
				return 0, nil
			}
			_, err := io.Copy(c.Stdout, c.Stdin)
			return 0, err
		},
		"exit": func(_ context.Context, c container.Command) (int32, error) {
			n, err := strconv.ParseInt(c.Args[1], 10, 32)
			return int32(n), err
		},
		"sleep": func(ctx context.Context, c container.Command) (int32, error) {
			n, err := strconv.Atoi(c.Args[1])
			if err != nil {
				return 1, nil //nolint:nilerr // as the program does
			}
			return 0, run.Sleep(ctx, time.Duration(n)*time.Second)
		},
	}
}

// Put keeps the archive as it is.
func (e *Executor) Put(_ context.Context, id string, p *logsv1.CopyPut, archive io.Reader) (*logsv1.CopyDone, error) {
	raw, err := io.ReadAll(archive)
	if err != nil {
		return nil, err
	}
	return &logsv1.CopyDone{Entries: 1, Bytes: uint64(len(raw))}, e.with(func() error {
		c, err := e.running(id)
		if err == nil {
			if c.files == nil {
				c.files = map[string][]byte{}
			}
			c.files[p.GetDir()] = raw
		}
		return err
	})
}

// Get gives the archive that was put there.
func (e *Executor) Get(_ context.Context, id string, g *logsv1.CopyGet, found func(*logsv1.CopyStat) error, archive io.Writer) error {
	var raw []byte
	err := e.with(func() error {
		c, err := e.running(id)
		if err != nil {
			return err
		}
		if raw = c.files[g.GetPath()]; raw == nil {
			return errs.New(errs.NotFound, "the container has no %s", g.GetPath())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := found(&logsv1.CopyStat{Name: g.GetPath(), Dir: true}); err != nil {
		return err
	}
	_, err = archive.Write(raw)
	return err
}
