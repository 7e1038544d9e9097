package simnet

import (
	"context"
	"fmt"
	"net"
	"slices"
	"syscall"
)

// Sockets is what one process on a host has open: a run.Network that can be killed.
type Sockets struct {
	host  *Host
	dead  chan struct{} // closed when killed
	gone  bool          // dead is closed
	conns map[*conn]struct{}
	tcp   map[*listener]struct{}
	udp   map[*packetConn]struct{}
}

// errDead is what a dead process's sockets return.
var errDead = fmt.Errorf("simulated process is dead: %w", net.ErrClosed)

// Sockets opens a set of sockets for one process. On a host that is down it is dead from the start.
func (h *Host) Sockets() *Sockets {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return h.open()
}

// open needs the lock.
func (h *Host) open() *Sockets {
	s := &Sockets{
		host: h, dead: make(chan struct{}),
		conns: map[*conn]struct{}{}, tcp: map[*listener]struct{}{}, udp: map[*packetConn]struct{}{},
	}
	if h.down {
		s.gone = true
		close(s.dead)
		return s
	}
	h.socks[s] = struct{}{}
	return s
}

// Kill is the end of the process: every call on its sockets, waiting or yet to come, fails, and the host closes them, so
// that peers see EOF, or a reset where something was unread. Listeners are gone. It may be called again.
func (s *Sockets) Kill() {
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	s.end(false)
}

// dropSockets ends all sets of a host that has crashed. Needs the lock.
func (n *Net) dropSockets(h *Host) {
	for s := range h.socks {
		s.end(true)
	}
	for c := range n.conns { // what a process closed before, and the host was still sending
		if c.host() == h {
			c.gone = true
			c.out.drop()
			c.forget()
		}
	}
}

// end needs the lock. In a crash nobody is told.
func (s *Sockets) end(crash bool) {
	if s.gone {
		return
	}
	s.gone = true
	close(s.dead)
	delete(s.host.socks, s)
	for l := range s.tcp {
		l.shut(crash)
	}
	for p := range s.udp {
		p.shut()
	}
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	slices.SortFunc(conns, func(x, y *conn) int { return int(x.id) - int(y.id) })
	for _, c := range conns {
		c.dead = true
		if crash {
			c.vanish()
		} else {
			c.shut()
		}
	}
}

// Listen is as in run.Network.
func (s *Sockets) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if err := ctx.Err(); err != nil {
		return nil, opError("listen", network, nil, err)
	}
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	if s.gone {
		return nil, opError("listen", network, nil, errDead)
	}
	if network == "unix" {
		return s.listenUnix(address)
	}
	return s.listenTCP(network, address)
}

// ListenPacket is as in run.Network.
func (s *Sockets) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, opError("listen", network, nil, err)
	}
	s.host.net.mu.Lock()
	defer s.host.net.mu.Unlock()
	if s.gone {
		return nil, opError("listen", network, nil, errDead)
	}
	return s.listenUDP(network, address)
}

// Dial is as in run.Network.
func (s *Sockets) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6", "unix":
		return s.dialStream(ctx, network, address)
	case "udp", "udp4", "udp6":
		return s.dialPacket(ctx, network, address)
	}
	return nil, opError("dial", network, nil, net.UnknownNetworkError(network))
}

// Listen, ListenPacket and Dial of a Host are those of its own set of sockets.
func (h *Host) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return h.current().Listen(ctx, network, address)
}

// ListenPacket is as in run.Network.
func (h *Host) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	return h.current().ListenPacket(ctx, network, address)
}

// Dial is as in run.Network.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return h.current().Dial(ctx, network, address)
}

func (h *Host) current() *Sockets {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return h.own
}

// opError is the error that package net would give. A nil error stays nil.
func opError(op, network string, addr net.Addr, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: op, Net: network, Addr: addr, Err: err}
}

const (
	errRefused  = syscall.ECONNREFUSED
	errReset    = syscall.ECONNRESET
	errPipe     = syscall.EPIPE
	errInUse    = syscall.EADDRINUSE
	errNotAvail = syscall.EADDRNOTAVAIL
	errTimedOut = syscall.ETIMEDOUT
)
