package simnet

import (
	"context"
	"net"
	"net/netip"
	"os"
	"time"
)

const (
	connectTimeout = 127 * time.Second // Linux's, with its default of 6 retries
	synTimeout     = time.Second       // first retransmission of a lost handshake
	dataTimeout    = 200 * time.Millisecond
)

// dialing is a connection being made. It stays in Net.dials until it has a result or its caller has given up; whatever
// may let it go on calls attempt.
type dialing struct {
	id     uint64
	sock   *Sockets
	remote net.Addr
	at     netip.AddrPort // TCP
	path   string         // unix
	target *Host          // nil: nobody has the address
	due    time.Time      // when the handshake is through; zero before it has begun
	timer  *time.Timer
	result chan dialed // holds one
}

type dialed struct {
	conn *conn
	err  error
}

func (s *Sockets) dialStream(ctx context.Context, network, address string) (net.Conn, error) {
	d, err := s.begin(ctx, network, address)
	if err != nil {
		return nil, err
	}
	select { // most dials have their result now, and need no timer
	case r := <-d.result:
		return r.take()
	default:
	}
	patience := time.NewTimer(connectTimeout)
	defer patience.Stop()
	select {
	case r := <-d.result:
		return r.take()
	case <-ctx.Done():
		err = ctx.Err()
	case <-patience.C:
		err = os.NewSyscallError("connect", errTimedOut)
	case <-s.dead:
		err = errDead
	}
	return nil, opError("dial", network, d.remote, d.giveUp(err))
}

// take avoids a nil *conn inside a non-nil net.Conn.
func (r dialed) take() (net.Conn, error) {
	if r.err != nil {
		return nil, r.err
	}
	return r.conn, nil
}

// begin checks, registers and makes the first attempt.
func (s *Sockets) begin(ctx context.Context, network, address string) (*dialing, error) {
	n := s.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	d := &dialing{id: n.nextID(), sock: s, result: make(chan dialed, 1)}
	if network == "unix" {
		d.remote, d.path, d.target = &net.UnixAddr{Name: address, Net: "unix"}, address, s.host
	} else {
		at, err := n.resolve(network, address)
		if err != nil {
			return nil, opError("dial", network, nil, err)
		}
		if at.Addr().IsUnspecified() { // Linux connects to itself
			at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
		}
		d.remote, d.at, d.target = tcpAddr(at), at, s.host.target(at.Addr())
	}
	if err := ctx.Err(); err != nil {
		return nil, opError("dial", network, d.remote, err)
	}
	if s.gone {
		return nil, opError("dial", network, d.remote, errDead)
	}
	n.stats.Dials++
	n.dials[d] = struct{}{}
	d.attempt()
	return d, nil
}

// giveUp closes what has been connected at the last moment.
func (d *dialing) giveUp(err error) error {
	n := d.sock.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stats.Hung++
	n.forgetDial(d)
	select { // buffered, never blocks
	case r := <-d.result:
		if r.conn != nil {
			r.conn.abort()
		}
	default:
	}
	return err
}

// forgetDial needs the lock.
func (n *Net) forgetDial(d *dialing) {
	delete(n.dials, d)
	if d.timer != nil {
		d.timer.Stop()
	}
}

// attempt goes on as far as it can: handshake there and back, then a listener's answer. Needs the lock.
func (d *dialing) attempt() {
	n := d.sock.host.net
	if _, waiting := n.dials[d]; !waiting || d.target == nil {
		return
	}
	there, back := n.path(d.sock.host, d.target), n.path(d.target, d.sock.host)
	if !there.open() || !back.open() {
		d.due = time.Time{} // begins again when the way is open
		return
	}
	now := time.Now()
	if d.due.IsZero() {
		d.due = now.Add(n.transit(there, synTimeout) + n.transit(back, synTimeout))
	}
	if wait := d.due.Sub(now); wait > 0 {
		d.again(wait)
		return
	}
	l := d.listener()
	switch {
	case l == nil:
		n.stats.Refused++
		d.done(dialed{err: opError("dial", d.remote.Network(), d.remote, os.NewSyscallError("connect", errRefused))})
	case len(l.queue) >= backlog:
		d.again(synTimeout)
	default:
		client, server := n.pair(d, l)
		l.queue = append(l.queue, server)
		l.cond.Signal()
		d.done(dialed{conn: client})
	}
}

func (d *dialing) again(wait time.Duration) {
	if d.timer != nil {
		d.timer.Stop()
	}
	n := d.sock.host.net
	d.timer = time.AfterFunc(wait, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		d.attempt()
	})
}

func (d *dialing) done(r dialed) {
	d.sock.host.net.forgetDial(d)
	d.result <- r // has room: a dialing has one result
}

func (d *dialing) listener() *listener {
	if d.path != "" {
		return d.target.unix[d.path]
	}
	return d.target.listenerAt(d.at)
}

// pair makes the two ends. Needs the lock.
func (n *Net) pair(d *dialing, l *listener) (client, server *conn) {
	client, server = n.newConn(d.sock), n.newConn(l.sock)
	client.peer, server.peer = server, client
	client.out = newHalf(n, client, server)
	server.out = newHalf(n, server, client)
	if d.path != "" {
		client.local, client.remote = &net.UnixAddr{Net: "unix"}, d.remote
		server.local, server.remote = d.remote, client.local
		return client, server
	}
	h := d.sock.host
	port := h.ephemeral(func(port uint16) bool { // a 4-tuple may be used once at a time
		for c := range n.conns {
			if a, ok := c.local.(*net.TCPAddr); ok && c.host() == h && a.Port == int(port) {
				return false
			}
		}
		return true
	})
	client.local, client.remote = tcpAddr(netip.AddrPortFrom(h.source(d.at.Addr()), port)), d.remote
	server.local, server.remote = d.remote, client.local
	return client, server
}
