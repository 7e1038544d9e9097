package mesh

import (
	"maps"
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
	task    *dispatcherv1.LocalTask
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

// Callers are who may call a task of this machine; nil: everybody. Last are those of before, or nil: they are returned if nothing
// that they are made of has changed.
//
// The machine itself always may, by its gateway's address, which also speaks for a container that is led to itself. Another
// machine's gateway speaks here for this machine alone, which has dialled a port there and was led back (Rules.Gateways): it may if
// this machine may.
func (m *Model) Callers(task *dispatcherv1.LocalTask, last *Callers) *Callers {
	said := m.callers[task.GetServiceId()]
	if said == nil || len(task.GetAddresses()) == 0 { // without an address of its own it is called as its machine is
		return nil
	}
	from := callersSource{said, task, m.era}
	if last != nil && last.from == from {
		return last
	}
	c := readCallers(said.GetCallers())
	if c == nil {
		c = &Callers{Addresses: map[netip.Addr]struct{}{}}
	}
	c.from = from
	own, others := m.gateways(task)
	allowed := false
	for _, is4 := range []bool{true, false} {
		for _, a := range m.era.addresses[own.node].advertised.of(is4) {
			allowed = allowed || c.Allow(a)
		}
	}
	for _, a := range own.addresses {
		c.Addresses[a] = struct{}{}
	}
	if allowed {
		for _, a := range others {
			c.Addresses[a] = struct{}{}
		}
	}
	return c
}

// home is a machine with the addresses by which it speaks to its containers.
type home struct {
	node      string
	addresses []netip.Addr
}

// gateways are those of the machine that has a task's addresses, and those of all others.
func (m *Model) gateways(task *dispatcherv1.LocalTask) (own home, others []netip.Addr) {
	at, err := first(task.GetAddresses())
	for id, machine := range m.machines {
		var list []netip.Addr
		here := false
		for _, text := range machine.GetBlocks() {
			if block, err := netip.ParsePrefix(text); err == nil {
				list = append(list, block.Masked().Addr().Next())
				here = here || block.Contains(at)
			}
		}
		if err == nil && here {
			own = home{id, list}
			continue
		}
		others = append(others, list...)
	}
	return own, others
}

// Closes says that some service names its callers that named nobody in an earlier model.
func (m *Model) Closes(earlier *Model) bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(m.callers)), func(id string) bool { return earlier == nil || earlier.callers[id] == nil })
}
