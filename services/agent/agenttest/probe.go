package agenttest

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// ImageProbe is what Behave said of the image.
func (e *Executor) ImageProbe(_ context.Context, image string) (probe *typesv1.Probe, err error) {
	err = e.with(func() error {
		b, named := e.host.images[image]
		if !named {
			b = e.host.all
		}
		probe = b.Health
		return e.reach()
	})
	return probe, err
}

// brief runs a command that ends at once: with 1 if it is a look and the container is sick, else with 0.
func (e *Executor) brief(ctx context.Context, id string, c container.Command, started func() error) (code int32, err error) {
	err = e.with(func() error {
		one := e.host.containers[id]
		if one == nil || one.presence != task.Running {
			return errs.New(errs.Precondition, "the container does not run")
		}
		switch words := strings.Join(c.Args, " "); {
		case words != "look":
			e.host.ran = append(e.host.ran, words)
		case e.host.sick[one.Image]:
			code = 1
		}
		return e.reach()
	})
	if err != nil {
		return 0, err
	}
	if code == 1 && c.Stdout != nil {
		if _, err := io.WriteString(c.Stdout, "not well"); err != nil {
			return 0, err
		}
	}
	if err := started(); err != nil {
		return 0, err
	}
	return code, ctx.Err()
}

// Listens is true of a container that is not sick.
func (n *Network) Listens(id string) (open bool, err error) {
	err = n.with(func() error {
		one := n.host.containers[id]
		open = one != nil && !n.host.sick[one.Image]
		return n.alive()
	})
	return open, err
}

// Dial reaches a container that is not sick, at any port. What is reached closes the connection.
func (n *Network) Dial(_ context.Context, id string, _ netip.AddrPort) (conn net.Conn, err error) {
	err = n.with(func() error {
		one := n.host.containers[id]
		if one == nil || !one.Running || n.host.sick[one.Image] {
			return syscall.ECONNREFUSED
		}
		return n.alive()
	})
	if err != nil {
		return nil, err
	}
	conn, other := net.Pipe()
	return conn, other.Close()
}
