package forward

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// bounds are the limits of a port.
type bounds struct {
	// places are its connections, or its UDP sessions.
	places int
	// silent is how long a connection on which nobody has said anything keeps its place when places are scarce. While they are not it
	// keeps it for as long as its ends want.
	silent time.Duration
	// backlog is how many bytes of its datagrams may wait for their tasks.
	backlog int
	// last is how long connections go on while the process stops.
	last time.Duration
}

// guest is a client's connection that has a place at a port.
type guest struct {
	seat   seat // has the connection; nil while it changes hands. Guarded by the port's lock
	client netip.Addr
	since  time.Time
	spoken atomic.Bool // one of its ends has said something
}

// speaks notes that it is in use. A nil guest is a connection that has its place elsewhere.
func (g *guest) speaks() {
	if g != nil && !g.spoken.Load() {
		g.spoken.Store(true)
	}
}

// seat is who has a guest's connection.
type seat interface {
	// Reset ends it, so that its ends hear of it.
	Reset()
}

// loose is a connection that no loop has.
type loose struct{ net.Conn }

func (l loose) Reset() { reset(l.Conn) }

// sit notes who has a guest's connection now. It is false, and the connection is reset, if the guest was sent off meanwhile.
func (p *port) sit(g *guest, s seat) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	g.seat = s
	if _, there := p.guests[g]; there || s == nil {
		return true
	}
	s.Reset()
	return false
}

// sendOff needs the port's lock. It ends the connection by a reset.
func (g *guest) sendOff() {
	if g.seat != nil {
		g.seat.Reset()
	}
}

// empty says that nobody is there. Sessions end with their port.
func (p *port) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.guests) == 0
}

// neighbourhood is who shares places: a client, or in IPv6 all who can have an address beside its own.
func neighbourhood(client netip.Addr) netip.Addr {
	if client.Is6() && !client.Is4In6() {
		p, _ := client.WithZone("").Prefix(64) // it has as many bits
		return p.Addr()
	}
	return client
}

// take needs the lock. It gives a client a place, as long as it has fewer than are free: one alone comes to half of them, and whoever
// comes next finds some.
func (p *port) take(client netip.Addr) bool {
	who := neighbourhood(client)
	if p.shares[who] >= p.f.bounds.places-len(p.guests)-len(p.sessions) {
		return false
	}
	p.shares[who]++
	return true
}

// give needs the lock. It gives a place back.
func (p *port) give(client netip.Addr) {
	who := neighbourhood(client)
	if p.shares[who]--; p.shares[who] <= 0 {
		delete(p.shares, who)
	}
}

// enter notes a client, if it may call and there is a place for it; else it is nil and the result says why.
func (p *port) enter(client netip.Addr, s seat) (g *guest, refusal string) {
	g = &guest{seat: s, client: client, since: time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.callers.Allow(g.client):
		return nil, "refused"
	case !p.take(g.client):
		return nil, "crowded"
	}
	p.guests[g] = struct{}{}
	return g, ""
}

func (p *port) leave(g *guest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dismiss(g)
}

// dismiss needs the lock. It takes a guest's place back, once.
func (p *port) dismiss(g *guest) {
	if _, there := p.guests[g]; there {
		delete(p.guests, g)
		p.give(g.client)
	}
}

// await waits until a connection can be taken; false when ctx ends. At the bound none is: the kernel's queue holds the next ones, and
// then refuses.
func (p *port) await(ctx context.Context, slots chan<- struct{}) bool {
	p.relieve()
	select {
	case slots <- struct{}{}:
		return true
	default:
	}
	tick := time.NewTicker(p.relief())
	defer tick.Stop()
	for {
		select {
		case slots <- struct{}{}:
			return true
		case <-tick.C:
			p.relieve()
		case <-ctx.Done():
			return false
		}
	}
}

// relief is the time between two looks for connections that nobody uses.
func (p *port) relief() time.Duration { return p.f.bounds.silent / 30 }

// relieve ends what was never used, if more than half of the places are taken.
func (p *port) relieve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if 2*len(p.guests) <= p.f.bounds.places || now.Sub(p.relieved) < p.relief() {
		return
	}
	p.relieved = now
	for g := range p.guests {
		if !g.spoken.Load() && now.Sub(g.since) > p.f.bounds.silent {
			g.sendOff()
			p.dismiss(g)
			p.f.meter.connections.WithLabelValues("tcp", "silent").Inc()
		}
	}
}
