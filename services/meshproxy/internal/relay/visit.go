package relay

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dialLimit bounds one try to connect. All have the same, so that the first begun is the first to be given up.
const dialLimit = time.Second

// ErrSilent is why a connection that was not answered in time, by a task or another machine, is given up.
var ErrSilent = errors.New("no answer in time")

// visit is what is known of a pair that came in by a door.
type visit struct {
	door  *Door
	guest Guest
	far   Far // nil: a task of this machine
	head  []byte
	warm  bool // the link that it asks by had another stream before
}

// arrival is a client that one loop has accepted and another greets.
type arrival struct {
	door   *Door
	fd     int
	client netip.AddrPort
}

// accept takes who waits at a door, some at once.
func (l *loop) accept(id int32) {
	l.mu.Lock()
	d := l.doors[id]
	l.mu.Unlock()
	if d == nil {
		return // closed meanwhile
	}
	for range acceptsAtOnce {
		fd, client, err := d.accept()
		if err != nil {
			return // it is told again of those who wait
		}
		a := arrival{d, fd, client}
		if to := d.relay.least(l); to == l || !to.post(order{greet: a}) {
			l.greet(a)
		}
	}
}

// greet has the host decide, and begins what it says.
func (l *loop) greet(a arrival) {
	p := newPair(l, a.fd, -1)
	p.visit = &visit{door: a.door}
	l.pairs.Add(1)
	own, err := syscall.Getsockname(a.fd)
	if err != nil {
		l.end(p, true)
		return
	}
	lead := a.door.host.Greet(p, a.client, addrPort(own))
	p.visit.guest, p.spoken = lead.Guest, lead.Spoken
	switch {
	case lead.Guest == nil:
		l.end(p, true)
	case lead.Far != nil:
		p.visit.far, p.visit.head = lead.Far, lead.Head
		l.ask(p)
	case !lead.To.IsValid():
		l.aside(p, nil)
	default:
		p.ways[0].held = lead.Head
		fd, err := a.door.host.Connect(lead.To, lead.From)
		l.dial(p, fd, err)
	}
}

// dial waits for a pair's second end to connect, which has begun unless there was an error.
func (l *loop) dial(p *Pair, fd int, err error) {
	if err != nil {
		l.failed(p, err)
		return
	}
	p.ends[1].fd, p.dialling, p.begun = fd, true, time.Now()
	if err := l.add(p.ends[1]); err != nil {
		l.failed(p, err)
		return
	}
	l.dials = append(l.dials, trial{p, p.begun})
}

// add watches an end.
func (l *loop) add(e *end) error {
	l.ends[int32(e.fd)], e.since = e, l.round
	event := unix.EpollEvent{Events: watched, Fd: int32(e.fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, e.fd, &event))
}

// dialled is told of a socket that connects: it has, or it has failed.
func (l *loop) dialled(p *Pair, events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		fault, err := unix.GetsockoptInt(p.ends[1].fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && fault != 0 {
			err = unix.Errno(fault)
		}
		if err != nil {
			l.failed(p, os.NewSyscallError("connect", err))
			return
		}
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP) == 0 {
		return
	}
	p.dialling = false
	if p.call != nil {
		l.reply(p.ends[0].link, p.call.Reply(nil))
		l.turn(p)
		return
	}
	if err := l.add(p.ends[0]); err != nil {
		l.aside(p, err)
		return
	}
	p.visit.guest.Joined()
	l.turn(p) // its head is said at once
}

// failed is for whose second end does not connect.
func (l *loop) failed(p *Pair, err error) {
	if p.call != nil {
		l.unserved(p, err)
		return
	}
	l.aside(p, err)
}

// giveUp gives up what has not connected, or was not answered, in time.
func (l *loop) giveUp() {
	l.dials = late(l.dials, dialLimit, func(p *Pair) bool { return p.dialling }, func(p *Pair) { l.failed(p, ErrSilent) })
	l.asks = late(l.asks, askLimit, func(p *Pair) bool { return p.asking }, func(p *Pair) { l.unanswered(p, ErrSilent) })
}

// trial is a pair that waits, and since when. One that tries again has another trial.
type trial struct {
	pair  *Pair
	begun time.Time
}

// late gives up who has waited for the limit, and returns the list from the first who may wait on.
func late(list []trial, limit time.Duration, waits func(*Pair) bool, giveUp func(*Pair)) []trial {
	for len(list) > 0 {
		p := list[0].pair
		if waits(p) && !p.over && p.begun.Equal(list[0].begun) {
			if time.Since(p.begun) < limit {
				return list
			}
			giveUp(p)
		}
		list[0] = trial{}
		list = list[1:]
	}
	return nil
}

// patience is how long the loop may wait until it has to look at what connects or asks, in milliseconds; -1: for ever.
func (l *loop) patience() int {
	first, limited := time.Time{}, false
	if len(l.dials) > 0 {
		first, limited = l.dials[0].begun.Add(dialLimit), true
	}
	if len(l.asks) > 0 {
		if at := l.asks[0].begun.Add(askLimit); !limited || at.Before(first) {
			first, limited = at, true
		}
	}
	if !limited {
		return -1
	}
	return max(0, int(time.Until(first).Milliseconds())) + 1
}

// aside hands a client over to its guest; whom it was led to is closed.
func (l *loop) aside(p *Pair, err error) {
	p.over, p.dialling = true, false
	l.pairs.Add(-1)
	if fd := p.ends[1].fd; fd >= 0 {
		delete(l.ends, int32(fd))
		closeSocket(fd, true)
	}
	if fd := int32(p.ends[0].fd); l.ends[fd] == p.ends[0] {
		delete(l.ends, fd)
	}
	p.visit.guest.Aside(&Socket{p.ends[0].fd, p.visit.door}, err)
}

// Socket is a connection that no loop carries. It has its place until Leave.
type Socket struct {
	fd   int
	door *Door
}

// Conn is the connection, which has left the Socket. It is the socket itself, in Go's poller: package net would have a copy of it, and
// ask it what it is.
func (s *Socket) Conn() net.Conn { return &conn{os.NewFile(uintptr(s.fd), "client")} }

// Leave gives its place back.
func (s *Socket) Leave() { s.door.free() }

// conn is a net.Conn that can be half-closed and reset.
type conn struct{ *os.File }

func (c *conn) CloseWrite() error {
	return c.with(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

func (c *conn) SetLinger(seconds int) error {
	return c.with(func(fd int) error {
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(seconds)})
	})
}

func (c *conn) LocalAddr() net.Addr { return c.address(syscall.Getsockname) }

func (c *conn) RemoteAddr() net.Addr { return c.address(syscall.Getpeername) }

func (c *conn) address(of func(fd int) (syscall.Sockaddr, error)) net.Addr {
	var at netip.AddrPort
	_ = c.with(func(fd int) error {
		a, err := of(fd)
		at = addrPort(a)
		return err
	}) // one that has ended has none
	return net.TCPAddrFromAddrPort(at)
}

func (c *conn) with(call func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var fault error
	if err := raw.Control(func(fd uintptr) { fault = call(int(fd)) }); err != nil {
		return err
	}
	return fault
}
