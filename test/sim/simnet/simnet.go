// Package simnet is a network in memory whose hosts can be cut off, slowed, paused and crashed.
//
// A Net has hosts; a host gives each of its processes a set of sockets (Sockets, a run.Network), so that one process can
// be killed alone. Streams behave as TCP does, seen from a program:
//
//   - Dial is refused at once where a live host has no listener, and hangs (until its context ends, or 127 s) where the
//     host is down, paused, cut off or unknown. It goes on by itself when the fault ends.
//   - What is written over a cut waits, without an error on either side, and arrives after the healing. At most Window
//     bytes wait in a direction, then Write blocks.
//   - A host that crashes says nothing. After it is up again, whoever still writes to one of its old connections gets a
//     reset; who does not write gets it from the keepalive probe, within 15 s.
//   - A process that is killed has its sockets closed by its host: its peers see EOF or a reset.
//   - Loss delays a segment by retransmissions, and all that follow it; a lost datagram is gone.
//
// Faults act on ordered pairs of hosts, and at once: Partition, Isolate, Heal, Delay, Loss, Cut, Crash, Boot, Pause,
// Resume. A host's traffic with itself is touched by Crash and Pause only.
//
// It works inside a testing/synctest bubble and outside: one mutex for everything, never held across a wait (waiting is by
// sync.Cond), durations from package time, no goroutine of its own. Random choices come from the seed.
package simnet

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Window is how many bytes of one direction of a stream may be on their way or unread before Write blocks.
const Window = 256 << 10

// Net is one simulated network. Make it with New; Close it at the end.
type Net struct {
	mu     sync.Mutex // guards everything in this package
	rng    *rand.Rand
	hosts  map[string]*Host
	order  []*Host // in the order of their making
	byAddr map[netip.Addr]*Host
	paths  map[[2]*Host]*path
	preset path // what a new path starts with
	conns  map[*conn]struct{}
	dials  map[*dialing]struct{}
	lastID uint64
	stats  Stats
}

// Stats counts what the faults have hit, since the start.
type Stats struct {
	Dials    int // connections asked for
	Refused  int // of these, refused
	Hung     int // of these, given up by their caller
	Stalled  int // segments that met a cut, a pause or a host that was down
	Delayed  int // segments and datagrams that took longer than nothing
	Lost     int // retransmissions of segments, datagrams dropped by loss
	Dropped  int // datagrams that met a cut, a pause, a host that was down, or nobody
	Resets   int // resets that have arrived
	GivenUp  int // connections given up by TCP_USER_TIMEOUT
	Orphaned int // connections whose one end went with a crash
}

// Host is one machine on the network. It is itself a run.Network, for programs that run on it outside of a process; these
// sockets go with a crash and come back with Boot.
type Host struct {
	net    *Net
	name   string
	addrs  []netip.Addr
	down   bool
	paused bool
	port   uint16 // the ephemeral port given last
	tcp    []*listener
	udp    []*packetConn
	unix   map[string]*listener
	socks  map[*Sockets]struct{}
	own    *Sockets // for Host's own run.Network
}

// New makes a network without hosts.
func New(seed uint64) *Net {
	return &Net{
		rng:    rand.New(rand.NewPCG(seed, 0x5e_ed)),
		hosts:  map[string]*Host{},
		byAddr: map[netip.Addr]*Host{},
		paths:  map[[2]*Host]*path{},
		conns:  map[*conn]struct{}{},
		dials:  map[*dialing]struct{}{},
	}
}

// Host is the host of that name; the first call makes it. Addresses may be IPv4 and IPv6; without any it gets the next of
// 10.99.0.0/16. The name resolves to its addresses. It panics on a malformed or taken address: that is a broken test.
func (n *Net) Host(name string, addrs ...string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[name]; h != nil {
		return h
	}
	h := &Host{net: n, name: name, port: firstEphemeral - 1, unix: map[string]*listener{}, socks: map[*Sockets]struct{}{}}
	if len(addrs) == 0 {
		i := len(n.order) + 1
		addrs = []string{fmt.Sprintf("10.99.%d.%d", i/250, i%250+1)}
	}
	for _, a := range addrs {
		ip := netip.MustParseAddr(a).Unmap()
		if other := n.byAddr[ip]; other != nil {
			panic(fmt.Sprintf("simnet: address %s of host %q is taken by host %q", ip, name, other.name))
		}
		n.byAddr[ip] = h
		h.addrs = append(h.addrs, ip)
	}
	n.hosts[name] = h
	n.order = append(n.order, h)
	h.own = h.open()
	return h
}

// Hosts are the names of all hosts, in the order of their making.
func (n *Net) Hosts() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	names := make([]string, len(n.order))
	for i, h := range n.order {
		names[i] = h.name
	}
	return names
}

// Stats is a copy of the counters.
func (n *Net) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

// Conns is the number of open connections with one end on a host of a and the other on one of b; nil means all hosts.
func (n *Net) Conns(a, b []string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	ends := 0
	for _, c := range n.sortedConns() {
		if !c.closed && !c.peer.closed && c.err == nil && n.between(c, a, b) {
			ends++
		}
	}
	return ends / 2
}

// Close takes every host down for good. Every call that waits returns an error, every timer is stopped.
func (n *Net) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.order {
		h.down = true
		n.dropSockets(h)
	}
	for d := range n.dials {
		n.forgetDial(d)
	}
	for c := range n.conns {
		c.out.drop()
		c.stopTimers()
	}
	clear(n.conns)
}

// Name is the host's name.
func (h *Host) Name() string { return h.name }

// Addrs are the host's addresses, without loopback.
func (h *Host) Addrs() []netip.Addr { return slices.Clone(h.addrs) }

// Addr is the host's first address as text.
func (h *Host) Addr() string { return h.addrs[0].String() }

// path is what lies between two hosts in one direction.
type path struct {
	from, to *Host
	blocked  bool
	delay    time.Duration
	jitter   time.Duration // up to this much more than delay
	loss     float64       // the chance of each segment or datagram
}

// path needs the lock. The result stays the same for a pair, so that connections keep it.
func (n *Net) path(from, to *Host) *path {
	key := [2]*Host{from, to}
	p := n.paths[key]
	if p == nil {
		p = &path{from: from, to: to}
		if from != to {
			p.delay, p.jitter, p.loss = n.preset.delay, n.preset.jitter, n.preset.loss
		}
		n.paths[key] = p
	}
	return p
}

// open says that something sent now gets through.
func (p *path) open() bool {
	return !p.blocked && !p.from.down && !p.to.down && !p.from.paused && !p.to.paused
}

// plain says that it takes no time either.
func (p *path) plain() bool { return p.delay == 0 && p.jitter == 0 && p.loss == 0 }

// transit draws how long the next thing takes: the delay, and for what is repeated when lost, the retransmissions, whose
// timeout doubles each time from rto on. Needs the lock.
func (n *Net) transit(p *path, rto time.Duration) time.Duration {
	d := p.delay
	if p.jitter > 0 {
		d += time.Duration(n.rng.Int64N(int64(p.jitter) + 1))
	}
	for try := 0; try < 6 && p.loss > 0 && n.rng.Float64() < p.loss; try++ {
		n.stats.Lost++
		d += rto << try
	}
	if d > 0 {
		n.stats.Delayed++
	}
	return d
}

// nextID orders connections and dials, so that a fault hits them in the same order in each run. Needs the lock.
func (n *Net) nextID() uint64 {
	n.lastID++
	return n.lastID
}
