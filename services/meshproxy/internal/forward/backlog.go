package forward

import (
	"net/netip"
	"sync"
)

// backlogBytes bounds what waits of a port's datagrams until their tasks are found. A client has half of it at most.
const backlogBytes = 16 << 20

// backlog counts the bytes of datagrams that wait: of a port, and of each client of it (see neighbourhood).
type backlog struct {
	most int

	mu    sync.Mutex // guards all below, and the sessions' waiting and closed
	bytes int
	by    map[netip.Addr]int
}

// take counts n more bytes of a session; false if they are too many: a client may have as many as are free, so that one alone comes
// to half of them, and whoever comes next finds some.
func (b *backlog) take(s *session, n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	who := neighbourhood(s.client)
	if s.closed || b.by[who]+n > b.most-b.bytes {
		return false
	}
	b.add(s, n)
	return true
}

// give is for what waits no more.
func (b *backlog) give(s *session, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !s.closed {
		b.add(s, -n)
	}
}

// leave gives back what a session that ends has left, and it gets no more.
func (b *backlog) leave(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(s, -s.waiting)
	s.closed = true
}

// add needs the lock.
func (b *backlog) add(s *session, n int) {
	who := neighbourhood(s.client)
	s.waiting += n
	b.bytes += n
	if b.by[who] += n; b.by[who] == 0 {
		delete(b.by, who)
	}
}

// queue has a datagram wait for its session's turn. What finds no room is lost, as UDP may.
func (p *port) queue(s *session, data []byte) {
	if !p.backlog.take(s, len(data)) {
		p.f.meter.dropped.Inc()
		return
	}
	select {
	case s.queue <- append(make([]byte, chunkHead, chunkHead+len(data)), data...):
	default:
		p.backlog.give(s, len(data))
		p.f.meter.dropped.Inc()
	}
}
