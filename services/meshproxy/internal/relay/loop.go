package relay

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// batch is how many ends are asked for at once.
const batch = 128

// loop carries its pairs. Only its run touches them.
type loop struct {
	store store
	ends  map[int32]*end
	busy  []*Pair // have had their turn, and could go on
	spare []*Pair // the list of before

	epoll int
	ready syscall.RawConn // waits for the epoll instance, as for a socket: no thread is held meanwhile
	close func() error
	bell  int // an eventfd(2) that ends the waiting

	news   atomic.Bool // there are orders
	mu     sync.Mutex  // guards below
	orders []order
	closed bool
}

// order is what others ask of a loop: to carry a pair, or to give it up.
type order struct {
	pair  *Pair
	reset bool
}

func newLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil { // which tells os.NewFile that it can be waited for
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(epoll))
	}
	file := os.NewFile(uintptr(epoll), "epoll")
	ready, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	bell, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), file.Close())
	}
	l := &loop{ends: map[int32]*end{}, epoll: epoll, ready: ready, bell: bell}
	l.close = func() error { return errors.Join(unix.Close(bell), file.Close()) }
	event := &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(bell)}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, bell, event); err != nil {
		return nil, errors.Join(os.NewSyscallError("epoll_ctl", err), l.close())
	}
	return l, nil
}

// carry hands a pair over. Its first events wake the loop, which looks for orders before it looks at events. With an error its
// sockets are closed, now or soon.
func (l *loop) carry(p *Pair) error {
	err := l.watch(p)
	if errors.Is(err, os.ErrClosed) {
		for i := range p.ends {
			closeSocket(p.ends[i].fd, true)
		}
	} else if err != nil {
		l.ring()
	}
	return err
}

// watch has the lock until both ends are watched: the loop, which may be woken by the first, can't close them before. Else the second
// number could be another's by then. With an error they are the loop's to close, like any of which it may have been told something.
func (l *loop) watch(p *Pair) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	l.orders = append(l.orders, order{pair: p})
	l.news.Store(true)
	for i := range p.ends {
		fd := p.ends[i].fd
		if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: watched, Fd: int32(fd)}); err != nil {
			l.orders[len(l.orders)-1].reset = true
			return os.NewSyscallError("epoll_ctl", err)
		}
	}
	return nil
}

// reset has a pair given up.
func (l *loop) reset(p *Pair) {
	l.mu.Lock()
	if !l.closed {
		l.orders = append(l.orders, order{pair: p, reset: true})
		l.news.Store(true)
	}
	l.mu.Unlock()
	l.ring()
}

// ring wakes the loop, and no other who has the bell's number when the loop has ended. It is never read: it has room for 2^64 rings.
func (l *loop) ring() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		_, _ = unix.Write(l.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // it can't be full
	}
}

// run carries until ctx ends.
func (l *loop) run(ctx context.Context) error {
	defer l.stop()
	defer context.AfterFunc(ctx, l.ring)()
	var events [batch]unix.EpollEvent
	for ctx.Err() == nil {
		n, err := l.wait(events[:])
		if err != nil {
			return err
		}
		// An end that was closed in this batch is not found by what is still told of it, nor is another that has its number since:
		// that one comes with the orders of the next.
		if l.news.Swap(false) {
			l.follow()
		}
		for _, ev := range events[:n] {
			if e := l.ends[ev.Fd]; e != nil {
				e.note(ev.Events)
				l.turn(e.pair)
			}
		}
		l.goOn()
		runtime.Gosched() // those who begin and end connections must not wait until it has nothing to do
	}
	return nil
}

// wait returns what has become ready, at once if somebody could go on.
func (l *loop) wait(events []unix.EpollEvent) (n int, err error) {
	var fault error
	err = l.ready.Read(func(fd uintptr) bool {
		n, fault = again(func() (int, error) { return unix.EpollWait(int(fd), events, 0) })
		return n > 0 || fault != nil || len(l.busy) > 0
	})
	return max(n, 0), errors.Join(err, os.NewSyscallError("epoll_wait", fault))
}

// goOn gives those another turn that could go on.
func (l *loop) goOn() {
	list := l.busy
	l.busy = l.spare[:0]
	for _, p := range list {
		p.listed = false
		if !p.over {
			l.turn(p)
		}
	}
	clear(list)
	l.spare = list[:0]
}

// follow does what was ordered.
func (l *loop) follow() {
	l.mu.Lock()
	orders := l.orders
	l.orders = nil
	l.mu.Unlock()
	for _, o := range orders {
		switch {
		case o.pair.over:
		case o.reset:
			l.end(o.pair, true)
		default:
			for i := range o.pair.ends {
				l.ends[int32(o.pair.ends[i].fd)] = &o.pair.ends[i]
			}
		}
	}
}

// turn carries what a pair has, both ways.
func (l *loop) turn(p *Pair) {
	more := false
	for i := range p.ways {
		w := &p.ways[i]
		was := w.over
		again, err := w.step(&l.store)
		// It will not hear the rest: it has said all, or what it said is not taken, and no read meets its reset.
		if (was || !w.dst.writable) && w.src.broken {
			err = unix.ECONNRESET
		}
		if err == nil && w.over && !was && !p.ways[1-i].over { // the second end needs no half-close: both are closed then
			err = unix.Shutdown(w.dst.fd, unix.SHUT_WR)
		}
		if err != nil {
			l.end(p, true)
			return
		}
		more = more || again
	}
	switch {
	case p.ways[0].over && p.ways[1].over:
		l.end(p, false)
	case more && !p.listed:
		p.listed = true
		l.busy = append(l.busy, p)
	}
}

// end closes a pair's sockets, after all was said or by a reset: then neither end may take what it has for the whole.
func (l *loop) end(p *Pair, reset bool) {
	p.over = true
	for i := range p.ends {
		p.ways[i].drop(&l.store)
		delete(l.ends, int32(p.ends[i].fd)) // before its number is another's
		closeSocket(p.ends[i].fd, reset)
	}
	close(p.done)
}

// stop resets what is left, and takes no more.
func (l *loop) stop() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.follow()
	for _, e := range l.ends {
		if !e.pair.over {
			l.end(e.pair, true)
		}
	}
	l.store.close()
	_ = l.close() // nothing is kept in them
}
