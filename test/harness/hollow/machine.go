package hollow

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"syscall"

	"github.com/shoalproject/shoal/internal/run"
)

// network is a hollow machine's: what it dials is real, and comes from its own address where it has one. Nobody else is on it,
// so that nothing answers on its unix sockets and nobody comes to its own.
type network struct {
	run.Network
	source net.Addr // nil: the kernel's choice
	gate   gate
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
	return nil, &net.OpError{Op: "dial", Net: kind, Addr: &net.UnixAddr{Name: address, Net: kind}, Err: syscall.ECONNREFUSED}
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

// sessionOpened is what an agent says when it is in session: the one word of it that is heard.
const sessionOpened = "session opened"

// ear is an agent's log: thousands of agents say too much to be kept.
type ear struct{ fleet *Fleet }

// Enabled is as in slog.Handler.
func (ear) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle is as in slog.Handler.
func (e ear) Handle(_ context.Context, r slog.Record) error {
	if r.Message == sessionOpened {
		e.fleet.opened.Add(1)
	}
	return nil
}

// WithAttrs is as in slog.Handler.
func (e ear) WithAttrs([]slog.Attr) slog.Handler { return e }

// WithGroup is as in slog.Handler.
func (e ear) WithGroup(string) slog.Handler { return e }
