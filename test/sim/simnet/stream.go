package simnet

import "time"

// segment is one thing on its way: data, or the end of the stream, or a reset.
type segment struct {
	data []byte
	kind segmentKind
	due  time.Time // not before this
}

type segmentKind uint8

const (
	segData segmentKind = iota
	segFin
	segReset
	segProbe // a keepalive: answered with a reset by a host that does not know the connection
)

// half is one direction of a stream. All its methods need the lock.
type half struct {
	net      *Net
	path     *path
	from, to *conn
	flight   []segment // written and not arrived, in order
	size     int       // bytes in flight or arrived and unread
	stalled  bool      // the first in flight has met a closed path, and was counted
	timer    *time.Timer
}

func newHalf(n *Net, from, to *conn) *half {
	return &half{net: n, from: from, to: to, path: n.path(from.host(), to.host())}
}

// send puts something on its way. Data is copied.
func (h *half) send(kind segmentKind, data []byte) {
	h.size += len(data)
	defer h.await()
	if len(h.flight) == 0 && h.path.plain() && h.path.open() {
		h.arrive(kind, data) // the usual case needs no segment and no clock
		return
	}
	s := segment{kind: kind, data: append([]byte(nil), data...), due: time.Now()}
	s.due = s.due.Add(h.net.transit(h.path, dataTimeout))
	h.flight = append(h.flight, s)
	h.net.conns[h.from] = struct{}{} // an end that is closed still has to be found when a fault ends
	h.pump()
}

// pump lets arrive what can, in order, and sets the timer for the next.
func (h *half) pump() {
	for len(h.flight) > 0 {
		if !h.path.open() {
			if !h.stalled {
				h.stalled = true
				h.net.stats.Stalled++
			}
			h.await()
			return
		}
		h.stalled = false
		first := h.flight[0]
		if wait := time.Until(first.due); wait > 0 {
			h.later(wait)
			return
		}
		h.flight = h.flight[1:]
		h.arrive(first.kind, first.data)
	}
	h.flight = nil
	if h.from.closed {
		h.from.forget()
	}
}

func (h *half) later(wait time.Duration) {
	if h.timer != nil {
		h.timer.Stop()
	}
	h.timer = time.AfterFunc(wait, func() {
		h.net.mu.Lock()
		defer h.net.mu.Unlock()
		h.pump()
	})
}

// arrive hands a segment to the reading end. An end that is closed answers data with a reset.
func (h *half) arrive(kind segmentKind, data []byte) {
	switch {
	case kind == segReset:
		h.to.arriveReset()
	case h.to.closed:
		h.size -= len(data)
		if kind != segFin {
			h.to.out.send(segReset, nil)
		}
	case kind == segFin:
		h.to.eof = true
	case kind == segData:
		h.to.in = append(h.to.in, data...)
	}
	h.to.readable.Broadcast()
}

// drop forgets what is in flight.
func (h *half) drop() {
	for _, s := range h.flight {
		h.size -= len(s.data)
	}
	h.flight = nil
	h.stalled = false
	if h.timer != nil {
		h.timer.Stop()
	}
}
