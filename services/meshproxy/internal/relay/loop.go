package relay

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// yieldEvery is less than what the runtime lets a goroutine go on for (10 ms): one that has gone on for longer loses its processor at each
// call of the kernel.
const yieldEvery = 5 * time.Millisecond

// batch is how many ends are asked for at once.
const batch = 128

// loop carries its pairs. Only its run touches them.
type loop struct {
	store store
	ends  map[int32]*end
	busy  []*Pair // have had their turn, and could go on
	spare []*Pair // the list of before
	dials []trial // began to connect, the first one first; some are past it
	asks  []trial // have asked a peer, likewise
	links links
	round uint64 // how often it was told what has become ready

	epoll int
	bell  int          // an eventfd(2) that ends the waiting
	pairs atomic.Int64 // that it has

	news   atomic.Bool // there are orders
	mu     sync.Mutex  // guards below
	orders []order
	doors  map[int32]*Door
	closed bool
}

// doorEvent marks what the kernel tells of a door. Its number is then that of the door, and else that of a socket.
const doorEvent = 1

func newLoop(s *stock) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), unix.Close(epoll))
	}
	l := &loop{links: links{stock: s, idle: map[string][]*Link{}, missing: map[*Pair]struct{}{}}, ends: map[int32]*end{}, doors: map[int32]*Door{}, epoll: epoll, bell: bell}
	event := &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(bell)}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, bell, event); err != nil {
		return nil, errors.Join(os.NewSyscallError("epoll_ctl", err), l.close())
	}
	return l, nil
}

func (l *loop) close() error { return errors.Join(unix.Close(l.bell), unix.Close(l.epoll)) }

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
	l.pairs.Add(1)
	for i := range p.ends {
		fd := p.ends[i].fd
		if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: watched, Fd: int32(fd)}); err != nil {
			l.orders[len(l.orders)-1].reset = true
			return os.NewSyscallError("epoll_ctl", err)
		}
	}
	return nil
}

// run carries until ctx ends.
func (l *loop) run(ctx context.Context) error {
	defer l.stop()
	defer context.AfterFunc(ctx, l.ring)()
	var events [batch]unix.EpollEvent
	yielded := time.Now()
	for ctx.Err() == nil {
		n, err := l.wait(events[:])
		if err != nil {
			return err
		}
		l.round++
		// An end that was closed in this batch is not found by what is still told of it, nor is another that has its number since: that
		// one comes with the orders of the next, or is of this round, of which nothing was told yet.
		if l.news.Swap(false) {
			l.follow()
		}
		for _, ev := range events[:n] {
			if ev.Pad == doorEvent {
				l.accept(ev.Fd)
			} else if e := l.ends[ev.Fd]; e != nil && e.since != l.round {
				l.told(e, ev.Events)
			}
		}
		l.goOn()
		l.giveUp()
		if now := time.Now(); now.Sub(yielded) > yieldEvery {
			yielded = now
			runtime.Gosched()
		}
	}
	return nil
}

// wait returns what has become ready, at once if somebody could go on.
func (l *loop) wait(events []unix.EpollEvent) (n int, err error) {
	patience := l.patience()
	if len(l.busy) > 0 || len(l.links.eager) > 0 {
		patience = 0
	}
	n, err = unix.EpollWait(l.epoll, events, patience)
	if errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	return max(n, 0), os.NewSyscallError("epoll_wait", err)
}

// told is told of an end.
func (l *loop) told(e *end, events uint32) {
	e.note(events)
	switch p := e.pair; {
	case p == nil || p.asking:
		l.hear(e.link)
	case !p.dialling:
		l.turn(p)
	case e.link == nil: // a peer that waits has nothing to say
		l.dialled(p, events)
	}
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
	eager := l.links.eager
	l.links.eager = nil
	for _, k := range eager {
		l.hear(k)
	}
}

// turn carries what a pair has, both ways.
func (l *loop) turn(p *Pair) {
	more := false
	if err := l.flush(p); err != nil {
		l.end(p, true)
		return
	}
	for i := range p.ways {
		w := &p.ways[i]
		was := w.over
		again, err := w.step(&l.store)
		// It will not hear the rest: it has said all, or what it said is not taken, and no read meets its reset.
		if (was || !w.dst.writable) && w.src.broken {
			err = unix.ECONNRESET
		}
		if err == nil && w.over && !was && !p.ways[1-i].over && w.dst.link == nil { // the second end needs no half-close: both are closed then
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
	asked := p.asking
	p.over, p.dialling, p.asking = true, false, false
	l.pairs.Add(-1)
	delete(l.links.missing, p)
	var link *Link // goes on without it
	for i, e := range p.ends {
		p.ways[i].drop(&l.store)
		if e.link != nil {
			link = e.link
		} else if e.fd >= 0 {
			delete(l.ends, int32(e.fd)) // before its number is another's
			closeSocket(e.fd, reset)
		}
	}
	if p.done != nil {
		close(p.done)
	}
	if v := p.visit; v != nil {
		if v.guest != nil {
			v.guest.Ended()
		}
		v.door.free()
	}
	if p.call != nil {
		p.call.Ended()
	}
	switch {
	case asked:
		l.leave(link)
	case link != nil:
		l.release(link, !reset)
	}
}

// stop resets what is left, and takes no more.
func (l *loop) stop() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.follow()
	for _, e := range l.ends {
		if e.pair == nil {
			l.closeLink(e.link)
		} else if !e.pair.over {
			l.end(e.pair, true)
		}
	}
	for p := range l.links.missing {
		l.end(p, true)
	}
	l.store.close()
	_ = l.close() // nothing is kept in them
}
