package mesh

import (
	"cmp"
	"net/netip"
	"slices"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

// Callers are the addresses that may call, and nobody else. It is never changed once made. Nil lets everybody in; what is no
// address and no range lets nobody in.
type Callers struct {
	// Addresses are those of tasks, of gateways, and single clients.
	Addresses map[netip.Addr]struct{}
	// Ranges are wider, in order, and none lies in another.
	Ranges []netip.Prefix
	from   callersSource
}

// callersSource says all that they are made of: while it is the same, so are they.
type callersSource struct {
	callers *dispatcherv1.ServiceCallers
	home    string // the machine
	era     *era
}

// Allow says that an address may call.
func (c *Callers) Allow(a netip.Addr) bool {
	if c == nil {
		return true
	}
	a = a.Unmap().WithZone("")
	if _, ok := c.Addresses[a]; ok {
		return true
	}
	return slices.ContainsFunc(c.Ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// readCallers reads what the tables say. Nil stays nil.
func readCallers(m *dispatcherv1.Callers) *Callers {
	if m == nil {
		return nil
	}
	c := &Callers{Addresses: map[netip.Addr]struct{}{}}
	for _, text := range m.GetPrefixes() {
		if a, err := netip.ParseAddr(text); err == nil {
			c.Addresses[a.Unmap()] = struct{}{}
			continue
		}
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
		case p.IsSingleIP():
			c.Addresses[p.Addr()] = struct{}{}
		default:
			c.Ranges = append(c.Ranges, p.Masked())
		}
	}
	c.Ranges = widest(c.Ranges)
	return c
}

// widest leaves out the ranges that lie in another: two ranges are beside each other, or one lies in the other.
func widest(ranges []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ranges, netip.Prefix.Compare) // the wider of two that begin alike first
	var out []netip.Prefix
	for _, p := range ranges {
		if n := len(out); n == 0 || !out[n-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

// Callers are who may call a task of this machine; nil: everybody. Last are those of before of a task of the same service, or nil: they
// are returned if nothing that they are made of has changed, so that all tasks of a service here share them.
//
// The machine itself always may, by its gateway's address, which also speaks for a container that is led to itself. Another
// machine's gateway speaks here for this machine alone, which has dialled a port there and was led back (Rules.Gateways): it may if
// this machine may.
func (m *Model) Callers(task *dispatcherv1.LocalTask, last *Callers) *Callers {
	said := m.callers[task.GetServiceId()]
	if said == nil || len(task.GetAddresses()) == 0 { // without an address of its own it is called as its machine is
		return nil
	}
	own := m.era.homeOf(task.GetAddresses())
	from := callersSource{said, own.node, m.era}
	if last != nil && last.from == from {
		return last
	}
	c := readCallers(said.GetCallers())
	if c == nil {
		c = &Callers{Addresses: map[netip.Addr]struct{}{}}
	}
	c.from = from
	allowed := false
	for _, is4 := range []bool{true, false} {
		for _, a := range m.era.addresses[own.node].advertised.of(is4) {
			allowed = allowed || c.Allow(a)
		}
	}
	for _, h := range m.era.homes {
		if h.node == own.node || allowed {
			c.Addresses[h.gateway()] = struct{}{}
		}
	}
	return c
}

// home is a block of a machine, by whose first address it speaks to its containers there.
type home struct {
	block netip.Prefix
	node  string
}

func (h home) gateway() netip.Addr { return h.block.Addr().Next() }

// homes are all blocks of all machines in order, read once for all tasks that are looked at.
func homes(machines map[string]*dispatcherv1.MeshMachine) []home {
	var out []home
	for id, machine := range machines {
		for _, text := range machine.GetBlocks() {
			if block, err := netip.ParsePrefix(text); err == nil {
				out = append(out, home{block.Masked(), id})
			}
		}
	}
	slices.SortFunc(out, func(a, b home) int { return cmp.Or(a.block.Compare(b.block), cmp.Compare(a.node, b.node)) })
	return out
}

// homeOf is the block that a task's address is from; none, where it is from nobody's.
func (e *era) homeOf(addresses []string) home {
	at, err := first(addresses)
	if err != nil {
		return home{}
	}
	// The last block that begins at the address or before it: blocks do not lie in each other.
	n, _ := slices.BinarySearchFunc(e.homes, at, func(h home, a netip.Addr) int {
		if h.block.Addr().Compare(a) <= 0 {
			return -1
		}
		return 1
	})
	if n == 0 || !e.homes[n-1].block.Contains(at) {
		return home{}
	}
	return e.homes[n-1]
}

// Closes says that some service is closed to somebody to whom it was open in an earlier model, and who may be there still: a task that
// has ended calls no more.
func (m *Model) Closes(earlier *Model) bool {
	var there map[string]bool
	for id, now := range m.callers {
		if earlier == nil || earlier.callers[id] == nil {
			return true
		}
		was := earlier.callers[id]
		if was == now {
			continue
		}
		may := map[string]bool{}
		for _, text := range now.GetCallers().GetPrefixes() {
			may[text] = true
		}
		for _, text := range was.GetCallers().GetPrefixes() {
			if may[text] {
				continue
			}
			if _, err := netip.ParseAddr(text); err != nil { // a range, or one client
				return true
			}
			if there == nil {
				there = m.inhabitants()
			}
			if there[text] {
				return true
			}
		}
	}
	return false
}

// inhabitants are the addresses of all tasks that this machine knows of.
func (m *Model) inhabitants() map[string]bool {
	out := map[string]bool{}
	for _, task := range m.local {
		for _, a := range task.GetAddresses() {
			out[a] = true
		}
	}
	for _, n := range m.networks {
		for _, e := range n.GetEntries() {
			for _, a := range e.GetAddresses() {
				out[a] = true
			}
		}
	}
	return out
}
