package hollow

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/shoalproject/shoal/internal/run"
)

// network is a hollow machine's: what it dials is real, and comes from its own address where it has one. Nobody else is on it,
// so that nothing answers on its unix sockets and nobody comes to its own.
type network struct {
	run.Network
	source net.Addr // nil: the kernel's choice
	gate   gate
	absent *absent
}

// absent is the meshproxy that a machine has not got. The agent finds out at once, by its first try. Another each second, on
// thousands of machines, would cost more than their sessions do; so the next one hangs until the fleet ends.
type absent struct {
	known atomic.Bool
	over  <-chan struct{}
}

func (a *absent) dial(ctx context.Context, kind, address string) (net.Conn, error) {
	if a.known.Swap(true) {
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				<-a.over // the time for this try; the agent would begin another
			}
		case <-a.over:
		}
	}
	return nil, &net.OpError{Op: "dial", Net: kind, Addr: &net.UnixAddr{Name: address, Net: kind}, Err: syscall.ECONNREFUSED}
}

// Listen is as in run.Network.
func (n network) Listen(ctx context.Context, kind, address string) (net.Listener, error) {
	if kind != "unix" {
		return n.Network.Listen(ctx, kind, address)
	}
	return &deaf{address: net.UnixAddr{Name: address, Net: "unix"}, closed: make(chan struct{})}, nil
}

// Dial is as in run.Network.
func (n network) Dial(ctx context.Context, kind, address string) (net.Conn, error) {
	if kind != "unix" {
		return n.gate.dial(ctx, net.Dialer{LocalAddr: n.source}, kind, address)
	}
	return n.absent.dial(ctx, kind, address)
}

// deaf is a listener to which nobody comes.
type deaf struct {
	address net.UnixAddr
	once    sync.Once
	closed  chan struct{}
}

func (d *deaf) Accept() (net.Conn, error) {
	<-d.closed
	return nil, net.ErrClosed
}

func (d *deaf) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

func (d *deaf) Addr() net.Addr { return &d.address }
