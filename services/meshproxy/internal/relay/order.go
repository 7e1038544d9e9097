package relay

import "golang.org/x/sys/unix"

// order is what others ask of a loop: to carry a pair, to give it up, to greet a client, or something of a link.
type order struct {
	pair  *Pair
	reset bool
	greet arrival
	link  func() // does it
}

// reset has a pair given up.
func (l *loop) reset(p *Pair) {
	l.post(order{pair: p, reset: true})
}

// post has the loop do something soon; false if it has ended.
func (l *loop) post(o order) bool {
	l.mu.Lock()
	open := !l.closed
	if open {
		l.orders = append(l.orders, o)
		l.news.Store(true)
	}
	l.mu.Unlock()
	l.ring()
	return open
}

// ring wakes the loop, and no other who has the bell's number when the loop has ended. It is never read: it has room for 2^64 rings.
func (l *loop) ring() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		_, _ = unix.Write(l.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // it can't be full
	}
}

// follow does what was ordered.
func (l *loop) follow() {
	l.mu.Lock()
	orders := l.orders
	l.orders = nil
	l.mu.Unlock()
	for _, o := range orders {
		switch {
		case o.link != nil:
			o.link()
		case o.pair == nil:
			l.greet(o.greet)
		case o.pair.over:
		case o.reset:
			l.end(o.pair, true)
		default:
			for i := range o.pair.ends {
				l.ends[int32(o.pair.ends[i].fd)] = o.pair.ends[i]
			}
		}
	}
}
