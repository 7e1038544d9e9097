package simnet

import (
	"cmp"
	"slices"
	"time"
)

// Partition lets nothing through from any host of a to any of b, nor back unless oneWay. Nil means all hosts.
func (n *Net) Partition(a, b []string, oneWay bool) {
	n.eachPath(a, b, !oneWay, func(p *path) { p.blocked = true })
}

// Isolate cuts the hosts off from every other host, in both directions, and from each other.
func (n *Net) Isolate(hosts ...string) {
	if len(hosts) > 0 {
		n.Partition(hosts, nil, false)
	}
}

// Heal ends every partition that touches one of the hosts; without hosts, every partition. What waited arrives.
func (n *Net) Heal(hosts ...string) {
	n.eachPath(hosts, nil, true, func(p *path) { p.blocked = false })
}

// Delay makes everything between a host of a and one of b take d and up to jitter more, each way. Nil means all hosts; nil
// for both holds for hosts made later, too. Streams keep their order, datagrams do not.
func (n *Net) Delay(a, b []string, d, jitter time.Duration) {
	n.mu.Lock()
	if a == nil && b == nil {
		n.preset.delay, n.preset.jitter = d, jitter
	}
	n.mu.Unlock()
	n.eachPath(a, b, true, func(p *path) { p.delay, p.jitter = d, jitter })
}

// Loss loses each segment or datagram between a host of a and one of b with probability p in [0, 1]. Nil is as in Delay.
func (n *Net) Loss(a, b []string, p float64) {
	n.mu.Lock()
	if a == nil && b == nil {
		n.preset.loss = p
	}
	n.mu.Unlock()
	n.eachPath(a, b, true, func(q *path) { q.loss = p })
}

// Cut resets every connection between a host of a and one of b, as a firewall does that forgets its state. Nil means all
// hosts. It returns how many there were. New connections are not hindered.
func (n *Net) Cut(a, b []string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	ends := 0
	for _, c := range n.sortedConns() {
		if c.host() != c.peer.host() && n.between(c, a, b) && !c.closed {
			c.out.drop()
			c.arriveReset()
			ends++
		}
	}
	return (ends + 1) / 2
}

// Crash takes the host down at this moment: all its sockets are dead, nothing more leaves it, its peers hear nothing.
func (n *Net) Crash(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[host]; h != nil && !h.down {
		h.down = true
		n.dropSockets(h)
	}
}

// Boot brings a crashed host up again, with no listener; it also ends a pause. On a host that is up it does nothing.
func (n *Net) Boot(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[host]
	if h == nil || !h.down {
		return
	}
	h.down, h.paused = false, false
	h.own = h.open()
	for _, c := range n.sortedConns() {
		if c.peer.host() == h && c.peer.gone && !c.closed {
			c.probeLater()
		}
	}
	n.kick()
}

// Pause stops all delivery to and from the host, its own included. Nothing is lost.
func (n *Net) Pause(host string) { n.setPaused(host, true) }

// Resume ends a pause: what waited arrives.
func (n *Net) Resume(host string) { n.setPaused(host, false) }

func (n *Net) setPaused(host string, paused bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[host]; h != nil {
		h.paused = paused
		n.kick()
	}
}

// eachPath changes the paths from a to b, and those from b to a if both, and lets go on what can go on now.
func (n *Net) eachPath(a, b []string, both bool, change func(*path)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, from := range n.pick(a) {
		for _, to := range n.pick(b) {
			if from == to {
				continue
			}
			change(n.path(from, to))
			if both {
				change(n.path(to, from))
			}
		}
	}
	n.kick()
}

// pick needs the lock. Nil is all hosts; an unknown name is nobody.
func (n *Net) pick(names []string) []*Host {
	if names == nil {
		return n.order
	}
	var hosts []*Host
	for _, name := range names {
		if h := n.hosts[name]; h != nil {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// between says that the connection joins a host of a and one of b. Needs the lock.
func (n *Net) between(c *conn, a, b []string) bool {
	has := func(set []string, h *Host) bool { return set == nil || slices.Contains(set, h.name) }
	x, y := c.host(), c.peer.host()
	return has(a, x) && has(b, y) || has(a, y) && has(b, x)
}

// kick lets every stream and every dial go on that can. Needs the lock.
func (n *Net) kick() {
	for _, c := range n.sortedConns() {
		c.out.pump()
	}
	dials := make([]*dialing, 0, len(n.dials))
	for d := range n.dials {
		dials = append(dials, d)
	}
	slices.SortFunc(dials, func(x, y *dialing) int { return cmp.Compare(x.id, y.id) })
	for _, d := range dials {
		d.attempt()
	}
}

func (n *Net) sortedConns() []*conn {
	conns := make([]*conn, 0, len(n.conns))
	for c := range n.conns {
		conns = append(conns, c)
	}
	slices.SortFunc(conns, func(x, y *conn) int { return cmp.Compare(x.id, y.id) })
	return conns
}
