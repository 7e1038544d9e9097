package simnet

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	packetQueue = 256   // datagrams that wait to be read; further ones are dropped
	maxDatagram = 65507 // as UDP over IPv4
)

// packetConn is a UDP socket, connected or not.
type packetConn struct {
	sock   *Sockets
	bound  netip.AddrPort
	peer   netip.AddrPort // set when connected
	queue  []datagram
	closed bool

	readable     sync.Cond
	readDeadline deadline
}

type datagram struct {
	data []byte
	from netip.AddrPort
}

// listenUDP needs the lock.
func (s *Sockets) listenUDP(network, address string) (net.PacketConn, error) {
	at, err := s.host.net.resolve(network, address)
	if err != nil {
		return nil, opError("listen", network, nil, err)
	}
	p, err := s.bindUDP(network, at)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (s *Sockets) bindUDP(network string, at netip.AddrPort) (*packetConn, error) {
	h := s.host
	if !h.bindable(at.Addr()) {
		return nil, opError("listen", network, udpAddr(at), os.NewSyscallError("bind", errNotAvail))
	}
	free := func(port uint16) bool {
		for _, p := range h.udp {
			if p.bound.Port() == port && overlap(p.bound.Addr(), at.Addr()) {
				return false
			}
		}
		return true
	}
	if at.Port() == 0 {
		at = netip.AddrPortFrom(at.Addr(), h.ephemeral(free))
	}
	if !free(at.Port()) {
		return nil, opError("listen", network, udpAddr(at), os.NewSyscallError("bind", errInUse))
	}
	p := &packetConn{sock: s, bound: at}
	p.readable.L = &h.net.mu
	h.udp = append(h.udp, p)
	s.udp[p] = struct{}{}
	return p, nil
}

func (s *Sockets) dialPacket(ctx context.Context, network, address string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, opError("dial", network, nil, err)
	}
	n := s.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.gone {
		return nil, opError("dial", network, nil, errDead)
	}
	to, err := n.resolve(network, address)
	if err != nil {
		return nil, opError("dial", network, nil, err)
	}
	p, err := s.bindUDP(network, netip.AddrPortFrom(s.host.source(to.Addr()), 0))
	if err != nil {
		return nil, err
	}
	p.peer = to
	return p, nil
}

// ReadFrom waits for the next datagram; what does not fit into b is lost.
func (p *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	p.readable.L.Lock()
	defer p.readable.L.Unlock()
	for {
		switch {
		case p.closed:
			return 0, nil, p.opError("read", p.closedError())
		case p.readDeadline.passed():
			return 0, nil, p.opError("read", os.ErrDeadlineExceeded)
		case len(p.queue) > 0:
			d := p.queue[0]
			p.queue = p.queue[1:]
			return copy(b, d.data), udpAddr(d.from), nil
		}
		p.readable.Wait()
	}
}

// Read is ReadFrom without the address.
func (p *packetConn) Read(b []byte) (int, error) {
	k, _, err := p.ReadFrom(b)
	return k, err
}

// WriteTo never waits and never says that a datagram was lost.
func (p *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	to, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, p.opError("write", &net.AddrError{Err: "not a UDP address", Addr: addr.String()})
	}
	ap := to.AddrPort()
	return p.sendTo(b, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
}

// Write sends to the connected address.
func (p *packetConn) Write(b []byte) (int, error) {
	if !p.peer.IsValid() {
		return 0, p.opError("write", os.NewSyscallError("write", errPipe))
	}
	return p.sendTo(b, p.peer)
}

func (p *packetConn) sendTo(b []byte, to netip.AddrPort) (int, error) {
	p.readable.L.Lock()
	defer p.readable.L.Unlock()
	if p.closed {
		return 0, p.opError("write", p.closedError())
	}
	if len(b) > maxDatagram {
		return 0, p.opError("write", &net.AddrError{Err: "message too long", Addr: to.String()})
	}
	n, target := p.sock.host.net, p.sock.host.target(to.Addr())
	if target == nil {
		n.stats.Dropped++
		return len(b), nil
	}
	way := n.path(p.sock.host, target)
	if !way.open() {
		n.stats.Dropped++
		return len(b), nil
	}
	if way.loss > 0 && n.rng.Float64() < way.loss {
		n.stats.Lost++
		return len(b), nil
	}
	d := datagram{data: append([]byte(nil), b...), from: p.sourceFor(to.Addr())}
	lossless := *way
	lossless.loss = 0
	if wait := n.transit(&lossless, 0); wait > 0 {
		time.AfterFunc(wait, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.deliver(way, to, d)
		})
		return len(b), nil
	}
	n.deliver(way, to, d)
	return len(b), nil
}

func (p *packetConn) sourceFor(ip netip.Addr) netip.AddrPort {
	if p.bound.Addr().IsUnspecified() {
		return netip.AddrPortFrom(p.sock.host.source(ip), p.bound.Port())
	}
	return p.bound
}

// deliver needs the lock.
func (n *Net) deliver(way *path, to netip.AddrPort, d datagram) {
	if way.open() {
		for _, p := range way.to.udp {
			if p.takes(to, d.from) && len(p.queue) < packetQueue {
				p.queue = append(p.queue, d)
				p.readable.Signal()
				return
			}
		}
	}
	n.stats.Dropped++
}

// takes says that a datagram is for this socket; a connected one hears its peer only.
func (p *packetConn) takes(to, from netip.AddrPort) bool {
	return p.bound.Port() == to.Port() && covers(p.bound.Addr(), to.Addr()) && (!p.peer.IsValid() || p.peer == from)
}

// Close ends the socket.
func (p *packetConn) Close() error {
	p.readable.L.Lock()
	defer p.readable.L.Unlock()
	if p.closed {
		return p.opError("close", p.closedError())
	}
	p.shut()
	return nil
}

// shut needs the lock.
func (p *packetConn) shut() {
	p.closed = true
	delete(p.sock.udp, p)
	h := p.sock.host
	for i, other := range h.udp {
		if other == p {
			h.udp = append(h.udp[:i:i], h.udp[i+1:]...)
			break
		}
	}
	p.readDeadline.set(&p.readable, time.Time{})
}

func (p *packetConn) closedError() error {
	if p.sock.gone {
		return errDead
	}
	return net.ErrClosed
}

func (p *packetConn) opError(op string, err error) error {
	return opError(op, "udp", udpAddr(p.bound), err)
}

// LocalAddr is a *net.UDPAddr.
func (p *packetConn) LocalAddr() net.Addr { return udpAddr(p.bound) }

// RemoteAddr is nil unless connected.
func (p *packetConn) RemoteAddr() net.Addr {
	if !p.peer.IsValid() {
		return nil
	}
	return udpAddr(p.peer)
}

// SetDeadline is SetReadDeadline: writing never waits.
func (p *packetConn) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetReadDeadline holds for waiting reads, too.
func (p *packetConn) SetReadDeadline(t time.Time) error {
	p.readable.L.Lock()
	defer p.readable.L.Unlock()
	p.readDeadline.set(&p.readable, t)
	return nil
}

// SetWriteDeadline has nothing to do: writing never waits.
func (p *packetConn) SetWriteDeadline(time.Time) error { return nil }
