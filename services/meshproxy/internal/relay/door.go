package relay

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// acceptsAtOnce bounds how many a loop takes from a door until others have their turn.
const acceptsAtOnce = 8

// Host decides about those who come in by a door. Loops call it, and it must not wait.
type Host interface {
	// Greet says where a client is led to. The pair is its own from now on, so that it can be given up; dialled is our address that it
	// came to.
	Greet(p *Pair, client, dialled netip.AddrPort) Lead
	// Connect begins a connection and returns its socket (run.Connect).
	Connect(to netip.AddrPort, from netip.Addr) (fd int, err error)
}

// Lead is what becomes of a client: without a guest it is reset, without an address its guest takes its connection over at once.
type Lead struct {
	Guest Guest
	To    netip.AddrPort
	From  netip.Addr
	// Far is who leads to a task of another machine, if it is one's.
	Far Far
	// Head is said to whom it is led before all else.
	Head []byte
	// Spoken is set when one of them says something.
	Spoken *atomic.Bool
}

// Guest is told what becomes of a connection, by its loop: it must not wait. Of Aside and Ended exactly one is the last that it hears.
type Guest interface {
	// Joined: it is connected with whom it was led to.
	Joined()
	// Aside: it is not, because of err if that is not nil. Its connection is the guest's from now on.
	Aside(client *Socket, err error)
	// Ended: both connections are closed.
	Ended()
}

// Door is a listener whose connections the loops take themselves.
type Door struct {
	relay *Relay
	host  Host
	id    int32
	most  int64
	// Stalled gets why no more are taken for now: nil where all places are. Whoever hears it has the door resumed, and again until it is.
	Stalled chan error

	open   atomic.Int64 // places that are taken
	paused atomic.Bool  // changed with the lock alone, as closed is
	closed atomic.Bool
	gone   chan struct{}
	last   sync.Once

	mu sync.RWMutex // guards the socket's number: whoever calls the kernel with it has the lock, loops share it
	fd int
}

// Open takes a listener over, and has those who come by it greeted by host: no more at once than most. What it accepts has the options of
// the listener (tcp(7), socket(7)): those that matter are set there once.
func (r *Relay) Open(l net.Listener, most int, host Host) (*Door, error) {
	fd, err := detach(l)
	if err == nil {
		err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	}
	_, err2 := r.turn() // there are loops then
	if err := errors.Join(err, err2); err != nil {
		if fd >= 0 {
			_ = unix.Close(fd) // it was not used
		}
		return nil, err
	}
	d := &Door{relay: r, host: host, most: int64(most), fd: fd, Stalled: make(chan error, 1), gone: make(chan struct{})}
	r.mu.Lock()
	r.doors++
	d.id = r.doors
	r.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range r.all() {
		l.know(d)
		err = errors.Join(err, l.attend(d, true))
	}
	if err != nil {
		d.shut()
		return nil, err
	}
	return d, nil
}

// accept takes one client, if there is one and a place for it. Loops come here for each: what they need is shared.
func (d *Door) accept() (fd int, client netip.AddrPort, err error) {
	if d.open.Add(1) > d.most {
		d.pause(nil)
		d.free()
		return -1, client, unix.EAGAIN
	}
	fd, client, err = d.take()
	switch {
	case err == nil:
		return fd, client, nil
	case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED):
		d.open.Add(-1) // no reason to try again at once
		d.pause(os.NewSyscallError("accept", err))
		d.clear()
	default:
		d.free()
	}
	return -1, client, err
}

func (d *Door) take() (fd int, client netip.AddrPort, err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed.Load() || d.paused.Load() {
		return -1, client, unix.EAGAIN
	}
	fd, from, err := syscall.Accept4(d.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) // x/sys asks each socket for its protocol
	return fd, addrPort(from), err
}

// pause takes no more for now, and says why.
func (d *Door) pause(why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() || d.paused.Swap(true) {
		return
	}
	_ = d.watch(false) // it was watched
	d.stall(why)
}

func (d *Door) stall(why error) {
	select {
	case d.Stalled <- why:
	default: // it has heard of another reason, and will look
	}
}

// watch needs the lock.
func (d *Door) watch(yes bool) (err error) {
	for _, l := range d.relay.all() {
		if fault := l.attend(d, yes); !errors.Is(fault, os.ErrClosed) { // a loop that has ended takes none
			err = errors.Join(err, fault)
		}
	}
	return err
}

// free gives a place back.
func (d *Door) free() {
	d.open.Add(-1)
	if d.paused.Load() || d.closed.Load() {
		d.Resume()
		d.clear()
	}
}

// Resume takes some again after a stall, and says whether it does. There may be no places, or the kernel has no room to wait for clients:
// then Stalled gets why.
func (d *Door) Resume() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open.Load() >= d.most {
		return false
	}
	if d.closed.Load() || !d.paused.Load() {
		return true
	}
	if err := d.watch(true); err != nil {
		_ = d.watch(false) // by all loops or by none; those that did not begin have nothing to end
		d.stall(err)
		return false
	}
	d.paused.Store(false)
	return true
}

// clear says that it has gone, if it has.
func (d *Door) clear() {
	if d.closed.Load() && d.open.Load() == 0 {
		d.last.Do(func() { close(d.gone) })
	}
}

// Close takes no more. Those that were taken stay.
func (d *Door) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed.Load() {
		d.shut()
	}
}

// shut needs the lock.
func (d *Door) shut() {
	if !d.paused.Load() {
		_ = d.watch(false) // another process may have the socket, too: closing it ends no watch
	}
	for _, l := range d.relay.all() {
		l.forget(d)
	}
	_ = unix.Close(d.fd) // nobody has an interest in why it did not close
	d.closed.Store(true)
	d.clear()
}

// Gone is closed when it is closed and all places are free.
func (d *Door) Gone() <-chan struct{} { return d.gone }

func (l *loop) know(d *Door) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doors[d.id] = d
}

func (l *loop) forget(d *Door) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.doors, d.id)
}

// attend has a door's clients wake the loop, or no more: of several loops that wait for the same, one is woken.
func (l *loop) attend(d *Door, yes bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed // its number may be another's
	}
	op, event := unix.EPOLL_CTL_DEL, &unix.EpollEvent{}
	if yes {
		op, event = unix.EPOLL_CTL_ADD, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE, Fd: d.id, Pad: doorEvent}
	}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, op, d.fd, event))
}

// addrPort is an address as the kernel tells it, IPv4 as such.
func addrPort(a syscall.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *syscall.SockaddrInet6:
		addr := netip.AddrFrom16(a.Addr).Unmap()
		if a.ZoneId != 0 {
			addr = addr.WithZone(zone(int(a.ZoneId)))
		}
		return netip.AddrPortFrom(addr, uint16(a.Port))
	}
	return netip.AddrPort{}
}

func zone(index int) string {
	if i, err := net.InterfaceByIndex(index); err == nil {
		return i.Name
	}
	return strconv.Itoa(index)
}
