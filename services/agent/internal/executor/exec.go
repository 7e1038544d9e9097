package executor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	tasksv1 "github.com/containerd/containerd/api/services/tasks/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

const (
	// execPrefix begins the id of every command that people run. The life of the agent that runs it follows, so that one that
	// an earlier life has left behind is known.
	execPrefix = "shoal-exec-"
	// detachedPrefix begins the id of one that runs on by itself.
	detachedPrefix = "shoal-detached-"
	// killWait is how long a command that was killed may take to be gone.
	killWait = 10 * time.Second
	// quietWait is how long nothing must come of a command that has ended until its output counts as all.
	quietWait = time.Second
)

// Exec runs a command in a running container to its end, and kills it when ctx ends; one that is detached runs on by itself.
// Precondition: the container does not
// run. NotFound: it has no such program.
func (e *Executor) Exec(ctx context.Context, id string, c container.Command, started func() error) (int32, error) {
	call, cancel := e.call(ctx)
	defer cancel()
	t, spec, err := e.enter(call, id)
	if err != nil {
		return 0, err
	}
	process, err := e.process(call, id, spec, c)
	if err != nil {
		return 0, err
	}
	name, err := randomID()
	if err != nil {
		return 0, err
	}
	if c.Detach {
		p, err := t.Exec(call, detachedPrefix+name, process, cio.NullIO)
		if err != nil {
			return 0, execFailure(e.failure("prepare the command", err))
		}
		return 0, e.letGo(ctx, p, started)
	}
	busy := &activity{}
	c.Stdout, c.Stderr = busy.watch(c.Stdout), busy.watch(c.Stderr)
	input := &input{from: c.Stdin, over: make(chan struct{})}
	streams := []cio.Opt{cio.WithStreams(input.reader(), c.Stdout, c.Stderr)}
	if c.TTY {
		streams = []cio.Opt{cio.WithStreams(input.reader(), c.Stdout, nil), cio.WithTerminal}
	}
	p, err := t.Exec(call, execPrefix+e.life+name, process, cio.NewCreator(streams...))
	if err != nil {
		return 0, execFailure(e.failure("prepare the command", err))
	}
	return e.follow(ctx, &errand{Process: p, Command: c, input: input.over, busy: busy}, started)
}

func randomID() (string, error) {
	raw := make([]byte, 8)
	_, err := rand.Read(raw)
	return hex.EncodeToString(raw), err
}

// EndCommands ends what earlier lives of the agent have left running of people's commands in a container: nobody is there any
// more who could read what they say.
func (e *Executor) EndCommands(ctx context.Context, id string) error {
	ctx, cancel := e.call(ctx)
	defer cancel()
	tasks := e.client.TaskService()
	r, err := tasks.ListPids(ctx, &tasksv1.ListPidsRequest{ContainerID: id})
	if err = e.failure("list the container's processes", err); err != nil {
		if errs.Is(err, errs.NotFound) {
			return nil
		}
		return err
	}
	var failed []error
	for _, p := range r.GetProcesses() {
		var of runcoptions.ProcessDetails
		if p.GetInfo() == nil || p.GetInfo().UnmarshalTo(&of) != nil {
			continue // it is the container's own
		}
		if exec := of.GetExecID(); strings.HasPrefix(exec, execPrefix) && !strings.HasPrefix(exec, execPrefix+e.life) {
			failed = append(failed, e.endCommand(ctx, id, exec))
		}
	}
	return errors.Join(failed...)
}

func (e *Executor) endCommand(ctx context.Context, id, exec string) error {
	tasks := e.client.TaskService()
	_, err := tasks.Kill(ctx, &tasksv1.KillRequest{ContainerID: id, ExecID: exec, Signal: uint32(syscall.SIGKILL)})
	if err == nil {
		_, err = tasks.Wait(ctx, &tasksv1.WaitRequest{ContainerID: id, ExecID: exec})
	}
	if err == nil {
		_, err = tasks.DeleteProcess(ctx, &tasksv1.DeleteProcessRequest{ContainerID: id, ExecID: exec})
	}
	if err = e.failure("end a command that was left behind", err); errs.Is(err, errs.NotFound) {
		return nil // it has ended by itself
	}
	return err
}

// letGo starts a command that runs on by itself, and takes it away when it has ended. If there is no agent by then, its
// container does.
func (e *Executor) letGo(ctx context.Context, p containerd.Process, started func() error) error {
	lasting := namespaces.WithNamespace(context.WithoutCancel(ctx), e.cfg.Namespace)
	exited, err := p.Wait(lasting)
	if err == nil {
		own, cancel := context.WithTimeout(lasting, callTimeout)
		err = p.Start(own)
		cancel()
	}
	if err != nil {
		e.clear(lasting, &errand{Process: p})
		return execFailure(e.failure("start the command", err))
	}
	run.Async(lasting, func(ctx context.Context) (struct{}, error) {
		if status := <-exited; status.Error() == nil { // else the connection to the runtime has ended
			e.clear(ctx, &errand{Process: p})
		}
		return struct{}{}, nil
	})
	return started()
}

// errand is a command that runs.
type errand struct {
	containerd.Process
	container.Command
	input <-chan struct{} // closed at the end of the input
	busy  *activity
}

// input is what a command reads. Its end is told to the shim, which holds the pipe open else.
type input struct {
	from io.Reader
	over chan struct{}
	once sync.Once
}

// reader is nil for a command without input.
func (i *input) reader() io.Reader {
	if i.from == nil {
		return nil
	}
	return i
}

func (i *input) Read(b []byte) (int, error) {
	n, err := i.from.Read(b)
	if err != nil {
		i.once.Do(func() { close(i.over) })
	}
	return n, err
}

// activity says whether a command's output is still on its way.
type activity struct {
	writing atomic.Int32
	written atomic.Int64
}

func (a *activity) watch(w io.Writer) io.Writer { return &watched{w, a} }

type watched struct {
	io.Writer
	*activity
}

func (w *watched) Write(b []byte) (int, error) {
	w.writing.Add(1)
	defer w.writing.Add(-1)
	n, err := w.Writer.Write(b)
	w.written.Add(int64(n))
	return n, err
}

// enter is the running process of a container, with its spec.
func (e *Executor) enter(ctx context.Context, id string) (containerd.Task, *oci.Spec, error) {
	c, err := e.client.LoadContainer(ctx, id)
	if err != nil {
		return nil, nil, notRunning(e.failure("find the container", err))
	}
	spec, err := c.Spec(ctx)
	if err != nil {
		return nil, nil, e.failure("read the container's spec", err)
	}
	t, err := c.Task(ctx, nil)
	if err != nil {
		return nil, nil, notRunning(e.failure("find the container's process", err))
	}
	return t, spec, nil
}

func notRunning(err error) error {
	if errs.Is(err, errs.NotFound) {
		return errs.New(errs.Precondition, "the container does not run")
	}
	return err
}

// process lays what the command asks for over what the container has.
func (e *Executor) process(ctx context.Context, id string, spec *oci.Spec, c container.Command) (*specs.Process, error) {
	if c.User != "" {
		rec, err := e.client.ContainerService().Get(ctx, id)
		if err != nil {
			return nil, notRunning(e.failure("find the container", err))
		}
		user, _, _ := strings.Cut(c.User, ":")
		spec.Process.User = specs.User{}
		resolve := oci.Compose(oci.WithUser(c.User), keepGroup(oci.WithAdditionalGIDs(user)))
		if err := resolve(ctx, e.client, &rec, spec); err != nil {
			return nil, errs.New(errs.Invalid, "user %q: %s", c.User, err)
		}
	}
	p := *spec.Process
	p.Args, p.Terminal, p.ConsoleSize = c.Args, c.TTY, nil
	if c.TTY && c.Size != (container.Size{}) {
		p.ConsoleSize = &specs.Box{Width: uint(c.Size.Width), Height: uint(c.Size.Height)}
	}
	env := c.Env
	if c.TTY {
		env = append([]string{"TERM=xterm"}, env...)
	}
	for _, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		p.Env = append(slices.DeleteFunc(p.Env, func(have string) bool { return strings.HasPrefix(have, name+"=") }), entry)
	}
	if c.Dir != "" {
		p.Cwd = path.Join("/", c.Dir)
	}
	return &p, nil
}

// follow starts a command and waits for its end.
func (e *Executor) follow(ctx context.Context, c *errand, started func() error) (code int32, err error) {
	// What ends a command must go on when the caller's time is over.
	lasting := namespaces.WithNamespace(context.WithoutCancel(ctx), e.cfg.Namespace)
	defer e.clear(lasting, c)
	exited, err := c.Wait(lasting)
	if err != nil {
		return 0, e.failure("wait for the command", err)
	}
	own, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, e.cfg.Namespace), callTimeout)
	err = c.Start(own)
	cancel()
	if err != nil {
		return 0, execFailure(e.failure("start the command", err))
	}
	if err := started(); err != nil {
		return 0, err
	}
	input := c.input
	for {
		select {
		case status := <-exited:
			n, _, err := status.Result()
			if err != nil {
				return 0, e.failure("wait for the command", err)
			}
			return int32(n), c.drain(ctx)
		case <-input:
			input = nil
			e.tell(lasting, "end of input", func(ctx context.Context) error { return c.CloseIO(ctx, containerd.WithStdinCloser) })
		case size := <-c.Sizes:
			if c.TTY {
				e.tell(lasting, "size", func(ctx context.Context) error { return c.Resize(ctx, uint32(size.Width), uint32(size.Height)) })
			}
		case s := <-c.Signals:
			e.tell(lasting, "signal", func(ctx context.Context) error { return c.Kill(ctx, syscall.Signal(s)) })
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// drain waits until all that the command has said is passed on. What it has left running may hold its output open for ever:
// when nothing comes any more the rest is theirs.
func (c *errand) drain(ctx context.Context) error {
	all := run.Async(ctx, func(context.Context) (struct{}, error) { c.IO().Wait(); return struct{}{}, nil })
	tick := time.NewTicker(quietWait)
	defer tick.Stop()
	for before := int64(-1); ; {
		select {
		case <-all:
			return nil
		case <-tick.C:
			now := c.busy.written.Load()
			if now == before && c.busy.writing.Load() == 0 {
				return nil
			}
			before = now
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// clear kills a command that runs still, and takes it away.
func (e *Executor) clear(ctx context.Context, c *errand) {
	ctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	_, err := c.Delete(ctx, containerd.WithProcessKill)
	if err = e.failure("clear a command away", err); err != nil && !errs.Is(err, errs.NotFound) {
		e.log.Warn("a command that has ended is not cleared away", "error", err)
	}
}

// tell passes on what a command may miss: it may have ended meanwhile.
func (e *Executor) tell(ctx context.Context, what string, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := f(ctx); err != nil {
		e.log.Debug("a command was not told", "what", what, "error", err)
	}
}

// execFailure says what a person must mend in the words that the runtime has for it.
func execFailure(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, known := range []string{"executable file not found", "no such file or directory", "permission denied", "not a directory"} {
		if strings.Contains(text, known) {
			i := strings.LastIndex(text, "exec: ")
			return errs.New(errs.NotFound, "%s", strings.Trim(text[max(i, 0):], " :"))
		}
	}
	if strings.Contains(text, "not running") || strings.Contains(text, "stopped container") {
		return errs.New(errs.Precondition, "the container does not run")
	}
	return err
}
