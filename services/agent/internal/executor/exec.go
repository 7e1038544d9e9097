package executor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// killWait is how long a command that was killed may take to be gone.
const killWait = 10 * time.Second

// quietWait is how long the output of a command that has ended may take.
const quietWait = time.Second

// Exec runs a command in a running container to its end, and kills it when ctx ends.
func (e *Executor) Exec(ctx context.Context, id string, c container.Command, started func() error) (int32, error) {
	call, cancel := e.call(ctx)
	defer cancel()
	box, err := e.client.LoadContainer(call, id)
	if err != nil {
		return 0, e.failure("find the container", err)
	}
	spec, err := box.Spec(call)
	if err != nil {
		return 0, e.failure("read the container's spec", err)
	}
	t, err := box.Task(call, nil)
	if err != nil {
		return 0, e.failure("find the container's process", err)
	}
	process := *spec.Process
	process.Args, process.Terminal = c.Args, false
	name := make([]byte, 8)
	if _, err := rand.Read(name); err != nil {
		return 0, err
	}
	p, err := t.Exec(call, "shoal-exec-"+hex.EncodeToString(name), &process, cio.NewCreator(cio.WithStreams(nil, c.Stdout, c.Stderr)))
	if err != nil {
		return 0, e.failure("prepare the command", err)
	}
	lasting := namespaces.WithNamespace(context.WithoutCancel(ctx), e.cfg.Namespace)
	defer func() {
		lasting, cancel := context.WithTimeout(lasting, killWait)
		defer cancel()
		_, _ = p.Delete(lasting, containerd.WithProcessKill)
	}()
	exited, err := p.Wait(lasting)
	if err != nil {
		return 0, e.failure("wait for the command", err)
	}
	if err := p.Start(call); err != nil {
		return 0, errs.New(errs.NotFound, "%s", err)
	}
	if err := started(); err != nil {
		return 0, err
	}
	select {
	case status := <-exited:
		code, _, err := status.Result()
		all := run.Async(lasting, func(context.Context) (struct{}, error) { p.IO().Wait(); return struct{}{}, nil })
		select {
		case <-all:
		case <-time.After(quietWait): // what the command has left running may hold its output open for ever
		}
		return int32(code), err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
