package space

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// Chains of a container whose service names who may call it. Others have none of them, and pay nothing.
const (
	callersChain = "callers"
	callersHere  = "callers-input"
	// callersWithin are those of containers within the container: what comes to them by our links.
	callersWithin = "callers-forward"
)

// linkPrefix begins the names of a container's interfaces that the agent makes.
const linkPrefix = "eth"

// tcpReset is the flag RST in the TCP header's byte 13 (RFC 9293).
const tcpReset = 0x04

// guard makes or empties the chains that let only callers in, and takes them away where anybody may call; there are the chains
// that exist. They are the last to be asked, after all that a container's own tables do with a packet.
func (l layout) guard(c *nftables.Conn, callers *mesh.Callers, there map[string]bool) {
	hooks := map[string]*nftables.ChainHook{callersHere: nftables.ChainHookInput, callersWithin: nftables.ChainHookForward}
	if callers == nil {
		for name := range hooks {
			if there[name] {
				l.dropChain(c, name)
			}
		}
		if there[callersChain] {
			l.dropChain(c, callersChain)
		}
		return
	}
	chain := c.AddChain(&nftables.Chain{Name: callersChain, Table: l.table})
	c.FlushChain(chain)
	add := func(to *nftables.Chain, parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		c.AddRule(&nftables.Rule{Table: l.table, Chain: to, Exprs: all})
	}
	accept := nftables.ChainPolicyAccept
	for name, hook := range hooks {
		base := c.AddChain(&nftables.Chain{
			Name: name, Table: l.table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityRef(1), Policy: &accept,
		})
		c.FlushChain(base)
		// By the other interfaces come the container itself, its health checks, and containers within it.
		add(base, from(linkPrefix), []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: callersChain}})
	}
	pass := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	add(chain, answer(), pass)
	// Neighbours are found by ICMPv6, and what is too large is told by both.
	add(chain, protocol(unix.IPPROTO_ICMP), pass)
	add(chain, protocol(unix.IPPROTO_ICMPV6), pass)
	// A caller who may no longer hears a reset, and what the container still sends him is answered with one: let it in, or the
	// container would wait for ever.
	add(chain, protocol(unix.IPPROTO_TCP), ends(), pass)
	for _, f := range l.families {
		for _, set := range []*nftables.Set{f.callers, f.ranges} {
			add(chain, f.source(), []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID}}, pass)
		}
	}
	add(chain, reset())
	add(chain, []expr.Any{unreachable()})
}

// admit changes the sets of callers by difference, so that the cost is that of the change.
func (l layout) admit(c *nftables.Conn, have, want *mesh.Callers) error {
	if have == want {
		return nil
	}
	none := &mesh.Callers{}
	if have == nil {
		have = none
	}
	if want == nil {
		want = none
	}
	var changed [2]elements
	for a := range have.Addresses {
		if _, stays := want.Addresses[a]; !stays {
			e := &changed[l.index(a)]
			e.gone = append(e.gone, nftables.SetElement{Key: a.AsSlice()})
		}
	}
	for a := range want.Addresses {
		if _, was := have.Addresses[a]; !was {
			e := &changed[l.index(a)]
			e.fresh = append(e.fresh, nftables.SetElement{Key: a.AsSlice()})
		}
	}
	for i, f := range l.families {
		if err := changed[i].into(c, f.callers); err != nil {
			return err
		}
	}
	old, next := intervals(have.Ranges), intervals(want.Ranges)
	for p, e := range old {
		if _, stays := next[p]; !stays {
			if err := c.SetDeleteElements(l.of(p.Addr()).ranges, e); err != nil {
				return err
			}
		}
	}
	for p, e := range next {
		if _, was := old[p]; !was {
			if err := c.SetAddElements(l.of(p.Addr()).ranges, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l layout) index(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// intervals are ranges as the kernel has them: where each begins, and where the next address that is not in it is. The last
// range of a family has no end.
func intervals(ranges []netip.Prefix) map[netip.Prefix][]nftables.SetElement {
	out := map[netip.Prefix][]nftables.SetElement{}
	for _, p := range ranges {
		e := []nftables.SetElement{{Key: p.Addr().AsSlice()}}
		if end := last(p).Next(); end.IsValid() {
			e = append(e, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
		out[p] = e
	}
	return out
}

func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b) // of an address
	return a
}

// from matches interfaces by the beginning of their names.
func from(prefix string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(prefix)},
	}
}

// answer matches what belongs to a connection that the container has begun.
func answer() []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeyDIRECTION},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}}, // IP_CT_DIR_REPLY
	}
}

func protocol(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
	}
}

func ends() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{tcpReset}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0}},
	}
}

// source loads the source of packets of the family.
func (f *family) source() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.number}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset - f.len, Len: f.len},
	}
}
