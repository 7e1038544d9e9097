package simnet

import (
	"net"
	"net/netip"
	"os"
	"sync"
)

// backlog is how many connections wait to be accepted; further ones hang.
const backlog = 128

// listener is a TCP or unix listener.
type listener struct {
	sock   *Sockets
	addr   net.Addr
	bound  netip.AddrPort // TCP
	path   string         // unix
	queue  []*conn
	closed bool
	cond   sync.Cond
}

func (s *Sockets) newListener(addr net.Addr) *listener {
	l := &listener{sock: s, addr: addr}
	l.cond.L = &s.host.net.mu
	s.tcp[l] = struct{}{}
	return l
}

// listenTCP needs the lock.
func (s *Sockets) listenTCP(network, address string) (net.Listener, error) {
	h := s.host
	at, err := h.net.resolve(network, address)
	if err != nil {
		return nil, opError("listen", network, nil, err)
	}
	if !h.bindable(at.Addr()) {
		return nil, opError("listen", network, tcpAddr(at), os.NewSyscallError("bind", errNotAvail))
	}
	free := func(port uint16) bool {
		for _, l := range h.tcp {
			if l.bound.Port() == port && overlap(l.bound.Addr(), at.Addr()) {
				return false
			}
		}
		return true
	}
	if at.Port() == 0 {
		at = netip.AddrPortFrom(at.Addr(), h.ephemeral(free))
	}
	if !free(at.Port()) {
		return nil, opError("listen", network, tcpAddr(at), os.NewSyscallError("bind", errInUse))
	}
	l := s.newListener(tcpAddr(at))
	l.bound = at
	h.tcp = append(h.tcp, l)
	return l, nil
}

// listenUnix needs the lock. As run.Machine's, it takes the place of a dead process's socket.
func (s *Sockets) listenUnix(path string) (net.Listener, error) {
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	if s.host.unix[path] != nil {
		return nil, opError("listen", "unix", addr, os.NewSyscallError("bind", errInUse))
	}
	l := s.newListener(addr)
	l.path = path
	s.host.unix[path] = l
	return l, nil
}

// listenerAt finds who listens on the address; the most specific wins. Needs the lock.
func (h *Host) listenerAt(at netip.AddrPort) *listener {
	var found *listener
	for _, l := range h.tcp {
		if l.bound.Port() == at.Port() && covers(l.bound.Addr(), at.Addr()) {
			if found == nil || found.bound.Addr().IsUnspecified() {
				found = l
			}
		}
	}
	return found
}

// Accept waits for the next connection.
func (l *listener) Accept() (net.Conn, error) {
	n := l.sock.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		switch {
		case l.closed && l.sock.gone:
			return nil, opError("accept", l.addr.Network(), l.addr, errDead)
		case l.closed:
			return nil, opError("accept", l.addr.Network(), l.addr, net.ErrClosed)
		case len(l.queue) > 0:
			c := l.queue[0]
			l.queue = l.queue[1:]
			return c, nil
		}
		l.cond.Wait()
	}
}

// Close stops listening; connections that nobody has accepted are reset.
func (l *listener) Close() error {
	n := l.sock.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.closed {
		return opError("close", l.addr.Network(), l.addr, net.ErrClosed)
	}
	l.shut(false)
	return nil
}

// shut needs the lock. In a crash the waiting connections are the Sockets' to end.
func (l *listener) shut(crash bool) {
	l.closed = true
	h := l.sock.host
	delete(l.sock.tcp, l)
	if l.path != "" {
		delete(h.unix, l.path)
	}
	for i, other := range h.tcp {
		if other == l {
			h.tcp = append(h.tcp[:i:i], h.tcp[i+1:]...)
			break
		}
	}
	if !crash {
		for _, c := range l.queue {
			c.abort()
		}
	}
	l.queue = nil
	l.cond.Broadcast()
}

// Addr is where it listens.
func (l *listener) Addr() net.Addr { return l.addr }
