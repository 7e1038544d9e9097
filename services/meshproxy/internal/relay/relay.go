// Package relay joins pairs of TCP connections: what one end says the other hears, to its end or its reset. One end may be a stream of a
// link, which is a connection with another machine's meshproxy by TLS (package hop).
//
// It owns the sockets that were joined, from Join until they are closed, those of doors: listeners whose clients the loops accept,
// and connect to whom their host says; and those of links, from the end of their handshake on. A few loops carry them all, each a thread
// that waits for many sockets at once (epoll(7)) and reads and writes without ever waiting for one: a small request costs a read and a
// write, and wakes nobody else. It never looks at what clients and tasks say, and gives nothing up that is silent: the kernel's keep-alive
// ends what is dead. A Relay is safe for concurrent use; a pair or a link belongs to one loop, and only that touches its sockets.
package relay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalproject/shoal/internal/run"
)

const (
	// mostLoops bounds the threads: each can carry some hundred thousand small requests a second.
	mostLoops = 16
	// fewPairs are no burden for a loop: with no more it gives none away.
	fewPairs = 16
)

// Relay is one process's.
type Relay struct {
	begun chan struct{} // closed when there are loops

	mu    sync.Mutex // guards below
	loops []*loop
	next  int
	doors int32 // that there were

	stock stock
}

// New makes one that waits for its first pair.
func New() *Relay { return &Relay{begun: make(chan struct{})} }

// Run carries the pairs until ctx ends; those that are left then are reset. It must outlive those who join.
func (r *Relay) Run(ctx context.Context, log *slog.Logger) error {
	select {
	case <-r.begun:
	case <-ctx.Done():
		return nil
	}
	loops := r.all()
	// A loop waits in the kernel and keeps its place in the runtime meanwhile, which would be taken from it, and given back, again and
	// again: with a place more for each, others find one, and it needs none of theirs.
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + len(loops))
	defer func() { runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)-len(loops))) }()
	g := run.NewGroup(log)
	for i, l := range loops {
		g.Go("relay "+strconv.Itoa(i), l.run)
	}
	return g.Wait(ctx)
}

func (r *Relay) all() []*loop {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loops
}

// turn is the loop that gets the next pair. The first pair makes one for each processor.
func (r *Relay) turn() (*loop, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.loops) == 0 {
		var loops []*loop
		for range min(runtime.GOMAXPROCS(0), mostLoops) {
			l, err := newLoop(&r.stock)
			if err != nil {
				for _, l := range loops {
					_ = l.close() // nothing was kept in them
				}
				return nil, err
			}
			loops = append(loops, l)
		}
		r.loops = loops
		close(r.begun)
	}
	r.next++
	return r.loops[r.next%len(r.loops)], nil
}

// least is a loop that has far fewer pairs than own, or own: what is carried by who accepted it needs no other to wake.
func (r *Relay) least(own *loop) *loop {
	best := own
	for _, l := range r.all() {
		if l.pairs.Load() < best.pairs.Load() {
			best = l
		}
	}
	if own.pairs.Load() <= 2*best.pairs.Load()+fewPairs {
		return own
	}
	return best
}

// Able says that a connection can be joined: it is one of the system's, and not one of the simulation.
func Able(of net.Conn) bool {
	switch of.(type) {
	case *net.TCPConn, *conn:
		return true
	}
	return false
}

// Listens says that a listener can be a door.
func Listens(l net.Listener) bool {
	_, ok := l.(*net.TCPListener)
	return ok
}

// Join takes two connections over, which nobody else may use from then on, and carries what they say to each other. A half-closed
// side is half-closed on the other; who gives up, or is given up, is told so to the other by a reset. Spoken is set when one of
// them says something. With an error both are closed.
func (r *Relay) Join(a, b net.Conn, spoken *atomic.Bool) (*Pair, error) {
	one, err := detach(a)
	other, err2 := detach(b)
	l, err3 := r.turn()
	if err := errors.Join(err, err2, err3); err != nil {
		for _, fd := range []int{one, other} {
			if fd >= 0 {
				closeSocket(fd, true)
			}
		}
		return nil, err
	}
	p := newPair(l, one, other)
	p.spoken, p.done = spoken, make(chan struct{})
	if err := l.carry(p); err != nil {
		return nil, err
	}
	return p, nil
}

// Pair is two connections that are joined.
type Pair struct {
	loop   *loop
	own    [2]end  // its sockets
	ends   [2]*end // its own, or a link's
	ways   [2]way
	spoken *atomic.Bool
	listed bool // it has more to carry at once
	over   bool
	done   chan struct{} // nil for one that a loop has made

	visit *visit // of one that came in by a door
	call  Callee // of one that another meshproxy has asked for
	// It is not joined yet while its second end connects, or its link's peer has not answered.
	dialling, asking bool
	begun            time.Time // the last of these
}

// newPair is of two sockets; -1 is none, or none yet.
func newPair(l *loop, one, other int) *Pair {
	p := &Pair{loop: l}
	p.own = [2]end{{fd: one, pair: p, writable: true}, {fd: other, pair: p, writable: true}}
	p.with(&p.own[0], &p.own[1])
	return p
}

// with has it carry between these ends.
func (p *Pair) with(a, b *end) {
	p.ends = [2]*end{a, b}
	p.ways[0].src, p.ways[0].dst = a, b
	p.ways[1].src, p.ways[1].dst = b, a
}

// Done is closed when both connections are.
func (p *Pair) Done() <-chan struct{} { return p.done }

// Reset gives the pair up, soon: both ends hear a reset. More than once is no harm.
func (p *Pair) Reset() { p.loop.reset(p) }

// speaks notes that the pair is in use.
func (p *Pair) speaks() {
	if p.spoken != nil && !p.spoken.Load() {
		p.spoken.Store(true)
	}
}
