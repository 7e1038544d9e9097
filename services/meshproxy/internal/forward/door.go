package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/relay"
)

// door is a port's listener whose clients the relay's loops take themselves: they greet them, and lead each to its first task if that
// is on this machine. Whoever it does not bring to its task goes on as any other connection, with the tasks that are left.
type door struct {
	*port
	// beside starts who leaves the loops, and goes on as long as the port may.
	beside func(run.Task)
}

// openDoor has the loops listen, until ctx ends or closer is called. Those who came in stay.
func (p *port) openDoor(ctx context.Context, l net.Listener) (closer func(), err error) {
	d := &door{p, func(task run.Task) { p.f.tasks.Go(ctx, "connection", task) }}
	r, err := p.f.relay.Open(l, p.f.bounds.places, d)
	if err != nil {
		return nil, err
	}
	p.f.tasks.Go(ctx, "port "+p.Listener.String(), func(ctx context.Context) error {
		defer r.Close()
		defer context.AfterFunc(ctx, r.Close)()
		d.attend(ctx, r)
		return nil
	})
	return r.Close, nil
}

// attend looks after a door until all who came in have gone: at its bound it makes places free, and at the end of ctx gives those who are
// still there a last moment.
func (d *door) attend(ctx context.Context, r *relay.Door) {
	var last, again <-chan time.Time
	stop := ctx.Done()
	for {
		select {
		case <-r.Gone():
			return
		case <-stop:
			last, stop = time.After(d.f.bounds.last), nil
		case <-last:
			d.sendAllOff()
		case err := <-r.Stalled:
			wait := d.relief()
			if err != nil {
				d.unaccepted(err)
				wait = acceptWait
			}
			again = time.After(wait)
		case <-again:
			if d.relieve(); r.Resume() {
				again = nil
				continue
			}
			again = time.After(d.relief())
		}
	}
}

// sendAllOff ends the connections of a port.
func (p *port) sendAllOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for g := range p.guests {
		g.sendOff()
	}
}

// Connect is relay.Host's.
func (d *door) Connect(to netip.AddrPort, from netip.Addr) (fd int, err error) {
	return run.Connect(d.f.env.Net, to, from)
}

// Greet is relay.Host's.
func (d *door) Greet(pair *relay.Pair, client, dialled netip.AddrPort) relay.Lead {
	d.relieve()
	d.f.meter.openTCP.Inc()
	g, refusal := d.enter(client.Addr(), pair)
	if g == nil {
		d.f.meter.connections.WithLabelValues("tcp", refusal).Inc()
		d.f.meter.openTCP.Dec()
		return relay.Lead{}
	}
	v := &visit{door: d, guest: g, backends: d.turn(client.Addr())}
	v.open = Open{Listener: d.Listener, Client: client, Dialled: dialled}
	if len(v.backends) == 0 {
		return relay.Lead{Guest: v}
	}
	v.open.Backend = v.backends[0]
	lead := relay.Lead{Guest: v, Head: d.introduction(&v.open), Spoken: &g.spoken}
	if v.open.Backend.Node != d.f.self {
		lead.Far = v
		return lead
	}
	lead.To = v.open.Backend.For(client.Addr().Is4())
	lead.From = d.f.source(client.Addr(), lead.To)
	return lead
}

// visit is a client that came in by a door.
type visit struct {
	*door
	guest    *guest
	open     Open
	backends []mesh.Backend // in the order in which they are tried
	forget   func()         // takes it out of the book; nil before it is in
	dialled  bool           // a link for it
}

// Joined is relay.Guest's.
func (v *visit) Joined() {
	v.served(v.guest)
	v.forget = v.f.book.enter(&v.open)
}

// Ended is relay.Guest's.
func (v *visit) Ended() {
	if v.forget != nil {
		v.forget()
	}
	v.leave(v.guest)
	v.f.meter.openTCP.Dec()
}

// Aside is relay.Guest's.
func (v *visit) Aside(client *relay.Socket, err error) {
	v.sit(v.guest, nil)
	v.beside(func(ctx context.Context) error {
		defer client.Leave()
		defer v.Ended()
		ctx, cancel := v.f.lasting(ctx)
		defer cancel()
		v.goOn(ctx, client, err)
		return nil
	})
}

// goOn brings a client to a task without the loops: all are tried, or those that are left after the first one's fault.
func (v *visit) goOn(ctx context.Context, client *relay.Socket, fault error) {
	conn := client.Conn()
	if !v.sit(v.guest, loose{conn}) {
		return
	}
	if fault == nil || errors.Is(fault, errors.ErrUnsupported) || v.f.lacks(fault) {
		v.reachFor(ctx, conn, v.guest, &v.open, v.backends)
		return
	}
	first := v.backends[0]
	if _, refused := errors.AsType[refusal](fault); refused || first.Node == v.f.self {
		v.f.rest(first.Task)
	} else {
		v.f.rest(first.Node)
	}
	v.reachFor(ctx, conn, v.guest, &v.open, v.backends[1:], v.failed(first, fault))
}
