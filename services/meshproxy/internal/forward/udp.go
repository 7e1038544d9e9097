package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/packet"
)

// sessionQueue is how many datagrams wait while a session finds its task; more are lost, as UDP may.
const sessionQueue = 32

// session is a UDP client's way to one task, until it has been silent for long or the task goes.
type session struct {
	cancel  context.CancelFunc
	queue   chan []byte  // each after the room for a chunk's length
	backend mesh.Backend // guarded by the port's lock
	client  netip.Addr
	waiting int  // bytes in the queue; the backlog's, as is closed
	closed  bool // it takes no more
}

// receive takes datagrams until the socket is closed.
func (p *port) receive(ctx context.Context, sock *packet.Socket) error {
	defer p.endAll()
	buf := make([]byte, maxPacket)
	for {
		n, from, err := sock.Read(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return nil
			}
			if run.Sleep(ctx, acceptWait) != nil {
				return nil
			}
			continue
		}
		if s := p.sessionOf(ctx, sock, from); s != nil {
			p.queue(s, buf[:n])
		}
	}
}

// sessionOf finds a client's session or begins one; nil at the bound.
func (p *port) sessionOf(ctx context.Context, sock *packet.Socket, from packet.Origin) *session {
	key := from.Key()
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.sessions[key]; s != nil {
		return s
	}
	client := addressOf(from.Addr).Addr()
	if !p.callers.Allow(client) {
		p.f.meter.connections.WithLabelValues("udp", "refused").Inc()
		return nil
	}
	if !p.take(client) {
		p.f.meter.dropped.Inc()
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &session{cancel: cancel, queue: make(chan []byte, sessionQueue), client: client}
	p.sessions[key] = s
	p.f.tasks.Go(ctx, "session", func(ctx context.Context) error {
		defer p.end(key, s)
		p.converse(ctx, sock, from, s)
		return nil
	})
	return s
}

func (p *port) end(key string, s *session) {
	p.backlog.leave(s)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish(key, s)
}

// finish needs the lock. It ends a session and takes its place back, once.
func (p *port) finish(key string, s *session) {
	s.cancel()
	if p.sessions[key] == s {
		delete(p.sessions, key)
		p.give(s.client)
	}
}

func (p *port) endAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sessions {
		s.cancel()
	}
}

// converse is one session: find a task, then datagrams both ways.
func (p *port) converse(ctx context.Context, sock *packet.Socket, from packet.Origin, s *session) {
	m := p.f.meter
	m.open.WithLabelValues("udp").Inc()
	defer m.open.WithLabelValues("udp").Dec()
	o := &Open{Listener: p.Listener, Client: addressOf(from.Addr)}
	u, err := p.connect(ctx, o.Client, p.turn(o.Client.Addr()), func(b mesh.Backend) {
		o.Backend = b
		p.mu.Lock()
		defer p.mu.Unlock()
		s.backend = b
	})
	if err != nil {
		m.connections.WithLabelValues("udp", "no_backend").Inc()
		return
	}
	m.connections.WithLabelValues("udp", "served").Inc()
	defer p.f.book.enter(o)()
	defer u.abort()
	defer context.AfterFunc(ctx, u.abort)()
	var moved atomic.Uint64
	back := run.Async(ctx, func(context.Context) (struct{}, error) {
		defer s.cancel()
		return struct{}{}, p.answers(sock, from, u, s, &moved)
	})
	p.questions(ctx, u, s, &moved)
	u.abort()
	<-back
}

// questions sends the client's datagrams until both directions have been silent for long.
func (p *port) questions(ctx context.Context, u upstream, s *session, moved *atomic.Uint64) {
	last := uint64(0)
	idle := time.NewTicker(udpIdle)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case data := <-s.queue:
			p.backlog.give(s, len(data)-chunkHead)
			moved.Add(1)
			if u.conn != nil {
				_, _ = u.conn.Write(data[chunkHead:]) // what cannot be sent is lost, as UDP may; a refusal shows when reading
			} else if err := u.link.chunk(data, len(data)-chunkHead); err != nil {
				return
			}
		case <-idle.C:
			now := moved.Load()
			if now == last {
				return
			}
			last = now
		}
	}
}

// answers sends the task's datagrams to the client, until the way to it is closed.
func (p *port) answers(sock *packet.Socket, from packet.Origin, u upstream, s *session, moved *atomic.Uint64) error {
	next := p.f.datagrams(u)
	for {
		var unsent error
		err := next(func(data []byte) error {
			moved.Add(1)
			unsent = sock.Write(data[chunkHead:], from)
			return unsent
		})
		if err != nil {
			if unsent == nil && u.conn != nil && !errors.Is(err, net.ErrClosed) {
				p.mu.Lock()
				task := s.backend.Task
				p.mu.Unlock()
				p.f.rest(task) // refused: the next datagram goes to another
			}
			return err
		}
	}
}

// relayPackets is the receiver's side of a UDP session: chunks are datagrams. It ends with the link: what a session has
// used is not used again, since a late datagram would come out in another's.
func (f *Forwarder) relayPackets(ctx context.Context, conn net.Conn, l *link) bool {
	cut := func() {
		_ = conn.Close() // given up
		l.close()
	}
	defer cut()
	defer context.AfterFunc(ctx, cut)()
	back := run.Async(ctx, func(context.Context) (struct{}, error) {
		defer cut()
		next := f.datagrams(upstream{link: l})
		for {
			err := next(func(data []byte) error {
				_, _ = conn.Write(data[chunkHead:]) // as above
				return nil
			})
			if err != nil {
				return struct{}{}, err
			}
		}
	})
	next := f.datagrams(upstream{conn: conn})
	for {
		if err := next(func(data []byte) error { return l.chunk(data, len(data)-chunkHead) }); err != nil {
			break
		}
	}
	cut()
	<-back
	return false
}
