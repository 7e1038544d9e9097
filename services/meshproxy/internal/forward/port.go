package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/packet"
	"github.com/shoalproject/shoal/services/meshproxy/internal/relay"
)

// port is an open listener with its backends.
type port struct {
	mesh.Listener
	f     *Forwarder
	bind  []netip.Addr // see mesh.Port
	close func()
	// backlog is of its UDP sessions.
	backlog backlog

	mu       sync.Mutex // guards all below
	Service  string
	count    string // see mesh.Port
	affinity bool
	proxy    bool
	backends []mesh.Backend // replaced, never changed
	next     int
	callers  *mesh.Callers // see mesh.Port
	guests   map[*guest]struct{}
	shares   map[netip.Addr]int // places taken, by neighbourhood
	relieved time.Time
	sessions map[string]*session // UDP: by client
}

// open listens where the port answers. A port that cannot have one of its addresses has none.
func (f *Forwarder) open(ctx context.Context, want mesh.Port) (*port, error) {
	p := f.before(want)
	if p == nil {
		p = &port{Listener: want.Listener, f: f, sessions: map[string]*session{}, guests: map[*guest]struct{}{}, shares: map[netip.Addr]int{}}
		p.backlog = backlog{most: f.bounds.backlog, by: map[netip.Addr]int{}}
	}
	p.bind = want.Bind
	p.set(want)
	var closers []func()
	p.close = func() {
		for _, c := range closers {
			c()
		}
	}
	for _, address := range addressesOf(want.Bind, want.Port) {
		c, err := p.listen(ctx, address)
		if err != nil {
			p.close()
			return nil, err
		}
		closers = append(closers, c)
	}
	return p, nil
}

// listen opens one socket.
func (p *port) listen(ctx context.Context, address string) (closer func(), err error) {
	if p.Network == "udp" {
		pc, err := p.f.env.Net.ListenPacket(ctx, "udp", address)
		if err != nil {
			return nil, err
		}
		closer = func() { _ = pc.Close() } // nobody has an interest in why a listener did not close
		p.f.tasks.Go(ctx, "port "+p.Listener.String(), func(ctx context.Context) error {
			defer context.AfterFunc(ctx, closer)()
			return p.receive(ctx, packet.New(pc))
		})
		return closer, nil
	}
	l, err := p.f.env.Net.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if relay.Listens(l) {
		return p.openDoor(ctx, l)
	}
	closer = func() { _ = l.Close() }
	p.f.tasks.Go(ctx, "port "+p.Listener.String(), func(ctx context.Context) error {
		defer context.AfterFunc(ctx, closer)()
		return p.accept(ctx, l)
	})
	return closer, nil
}

// set swaps the backends. UDP clients of a backend that has gone are let go; connections stay.
func (p *port) set(want mesh.Port) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Service, p.count, p.backends = want.Service, want.Count, want.Backends
	p.affinity, p.proxy = want.Affinity, want.Proxy
	p.endSessions(func(b mesh.Backend) bool { return !slices.Contains(want.Backends, b) })
	p.admit(want.Callers)
}

// drop takes one task out.
func (p *port) drop(task string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.backends = slices.DeleteFunc(slices.Clone(p.backends), func(b mesh.Backend) bool { return b.Task == task })
	p.endSessions(func(b mesh.Backend) bool { return b.Task == task })
}

// endSessions needs the lock.
func (p *port) endSessions(gone func(mesh.Backend) bool) {
	for client, s := range p.sessions {
		if s.backend.Task != "" && gone(s.backend) {
			p.finish(client, s)
		}
	}
}

// turn lists the backends to try, in order: those awake, from the one whose turn it is, or from the client's own.
func (p *port) turn(client netip.Addr) []mesh.Backend {
	p.mu.Lock()
	all, next, count, affinity := p.backends, p.next, p.count, p.affinity
	p.next++
	p.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	p.f.counts.add(count)
	if affinity { // the place is one among all: who rests must not move the clients of the others
		return p.f.awake(from(all, place(client, len(all))))
	}
	awake := p.f.awake(all)
	return from(awake, next%len(awake))
}

// from is the list, begun at n.
func from(all []mesh.Backend, n int) []mesh.Backend {
	return append(slices.Clone(all[n:]), all[:n]...)
}

// upstream is the way to a task: a connection of this machine, or a link to the machine that has it. Exactly one is set.
type upstream struct {
	conn net.Conn
	link *link
}

func (u upstream) abort() {
	if u.conn != nil {
		_ = u.conn.Close() // the connection is given up
		return
	}
	u.link.close()
}

// connect tries backends in turn until one answers or the total limit has passed. Faults are those of others that were tried before.
func (p *port) connect(ctx context.Context, client netip.AddrPort, backends []mesh.Backend, chosen func(mesh.Backend), faults ...error) (upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, totalLimit)
	defer cancel()
	for len(backends) > 0 && ctx.Err() == nil {
		b := backends[0]
		chosen(b)
		u, err := p.f.reach(ctx, p.Network, b, client)
		if err == nil {
			return u, nil
		}
		if p.f.lacks(err) && run.Sleep(ctx, acceptWait) == nil {
			continue // no other could be reached now
		}
		faults = append(faults, p.failed(b, err))
		backends = backends[1:]
	}
	if len(faults) == 0 {
		return upstream{}, errs.New(errs.Unavailable, "no task is ready")
	}
	return upstream{}, errors.Join(faults...)
}

// failed counts a try.
func (p *port) failed(b mesh.Backend, err error) error {
	p.f.meter.failures.WithLabelValues(p.Network).Inc()
	return fmt.Errorf("task %s on %s: %w", b.Task, b.Node, err)
}

// reach opens the way to one task, and puts who does not answer last for a while: the task, or its machine.
func (f *Forwarder) reach(ctx context.Context, network string, b mesh.Backend, client netip.AddrPort) (upstream, error) {
	if b.Node == f.self {
		conn, err := f.dialTask(ctx, network, b.For(client.Addr().Is4()), client.Addr())
		if err != nil && !run.Lacking(err) {
			f.rest(b.Task)
		}
		return upstream{conn: conn}, err
	}
	ctx, cancel := context.WithTimeout(ctx, remoteTryLimit)
	defer cancel()
	l, refused, err := f.links.open(ctx, b.Node, headerFor(network, b, client))
	if err != nil {
		if !run.Lacking(err) {
			f.rest(b.Node)
		}
		return upstream{}, err
	}
	if refused != "" {
		f.rest(b.Task)
		return upstream{}, errs.New(errs.Unavailable, "%s", refused)
	}
	return upstream{link: l}, nil
}

// headerFor is what a task's machine is asked.
func headerFor(network string, b mesh.Backend, client netip.AddrPort) *meshv1.ForwardHeader {
	return &meshv1.ForwardHeader{TaskId: b.Task, Address: b.For(client.Addr().Is4()).String(), Client: client.String(), Network: network}
}

// acceptor is the part of a listener that is needed here.
type acceptor interface{ Accept() (net.Conn, error) }

// accept takes TCP connections until the listener is closed.
func (p *port) accept(ctx context.Context, l acceptor) error {
	slots := make(chan struct{}, p.f.bounds.places)
	for p.await(ctx, slots) {
		conn, err := l.Accept()
		if err != nil {
			<-slots
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return nil
			}
			p.unaccepted(err)
			if run.Sleep(ctx, acceptWait) != nil {
				return nil
			}
			continue
		}
		p.f.tasks.Go(ctx, "connection", func(ctx context.Context) error {
			defer func() { <-slots }()
			ctx, cancel := p.f.lasting(ctx)
			defer cancel()
			p.serve(ctx, conn)
			return nil
		})
	}
	return nil
}

func (p *port) unaccepted(err error) {
	if !p.f.lacks(err) {
		p.f.env.Log.Warn("accept failed, will retry", "port", p.Listener.String(), "error", err)
	}
}

// serve is one TCP connection from a client that no loop has taken.
func (p *port) serve(ctx context.Context, client net.Conn) {
	m := p.f.meter
	m.openTCP.Inc()
	defer m.openTCP.Dec()
	o := &Open{Listener: p.Listener, Client: addressOf(client.RemoteAddr()), Dialled: addressOf(client.LocalAddr())}
	g, refusal := p.enter(o.Client.Addr(), loose{client})
	if g == nil {
		m.connections.WithLabelValues("tcp", refusal).Inc()
		reset(client)
		return
	}
	defer p.leave(g)
	p.reachFor(ctx, client, g, o, p.turn(o.Client.Addr()))
}

// reachFor finds a guest a task, one backend after the other, and carries what they say to each other.
func (p *port) reachFor(ctx context.Context, client net.Conn, g *guest, o *Open, backends []mesh.Backend, faults ...error) {
	limited, cancel := context.WithDeadline(ctx, g.since.Add(totalLimit))
	defer cancel()
	u, err := p.connect(limited, o.Client, backends, func(b mesh.Backend) { o.Backend = b }, faults...)
	if err == nil {
		err = p.introduce(u, o)
	}
	if err != nil {
		p.unserved(o, err)
		reset(client)
		return
	}
	p.served(g)
	defer p.f.book.enter(o)()
	if u.conn != nil {
		p.join(ctx, client, u.conn, g)
		return
	}
	if p.f.carry(ctx, client, u.link, g) {
		p.f.links.put(u.link)
	}
}

// served counts a guest that has its task.
func (p *port) served(g *guest) {
	p.f.meter.connect.Observe(time.Since(g.since).Seconds())
	p.f.meter.servedTCP.Inc()
}

// unserved counts one that got none.
func (p *port) unserved(o *Open, err error) {
	p.f.meter.connections.WithLabelValues("tcp", "no_backend").Inc()
	p.f.env.Log.Debug("connection not served", "port", p.Listener.String(), "client", o.Client.String(), "error", err)
}

// lasting is a context for what has begun when ctx ends: it lives a moment longer, so that a short exchange comes to its
// end although the process stops.
func (f *Forwarder) lasting(ctx context.Context) (life context.Context, cancel context.CancelFunc) {
	life, cut := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(f.bounds.last, cut) })
	return life, func() {
		stop()
		cut()
	}
}

// reset closes with RST, so that a client that was accepted sees a failure and not an empty answer.
func reset(conn net.Conn) {
	if t, ok := conn.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0) // then it is closed the other way
	}
	_ = conn.Close()
}
