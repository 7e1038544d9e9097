package tables

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/ends"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// Prefixes of interface names, as nftables' "shoal*".
const (
	anyOfOurs  = "shoal*"
	anyOverlay = "shoalbr*"
)

// match is a part of a rule: expressions in the kernel's own terms (nftables(8) has the words for them).
type match []expr.Any

// rules lists our rules, those of a chain in order.
func (f filter) rules(r mesh.Rules) []*nftables.Rule {
	var out []*nftables.Rule
	add := func(c *nftables.Chain, parts ...match) {
		rule := &nftables.Rule{Table: f.table, Chain: c}
		for _, p := range parts {
			rule.Exprs = append(rule.Exprs, p...)
		}
		out = append(out, rule)
	}
	if r.Sealed {
		f.seal(add, r)
	}
	f.guardTunnels(add, r)
	// A container speaks for itself: see fromContainers.
	add(f.raw, iifname(mesh.MachineBridge), goTo(f.contained))
	f.fromContainers(add, r)
	f.guardMachine(add, r)
	f.guardForward(add, r)
	if r.Mesh {
		f.publish(add, r)
	}
	for _, b := range r.Blocks {
		add(f.leave, from(b), notOifname(anyOfOurs), match{&expr.Masq{}})
	}
	return out
}

// guardTunnels keeps strangers out of the tunnels: a frame is taken from a peer's address only, and never from a container, which
// could send one to a peer and be masqueraded into a valid one.
//
// Frames of peers are not tracked, neither here nor where they are sent: each connection inside would be tracked twice more, on each
// machine, for nobody.
func (f filter) guardTunnels(add func(*nftables.Chain, ...match), r mesh.Rules) {
	tunnel := dport(unix.IPPROTO_UDP, r.DataPort)
	add(f.raw, tunnel, jump(f.tunnelled))
	add(f.tunnelled, iifname(anyOfOurs), drop())
	for _, is4 := range []bool{true, false} {
		source, target, peers := source4(), target4(), f.peers4
		if !is4 {
			source, target, peers = source6(), target6(), f.peers6
		}
		add(f.tunnelled, ofFamily(is4), in(source, peers), toThisMachine(), match{&expr.Notrack{}}, accept())
		add(f.sent, tunnel, ofFamily(is4), in(target, peers), match{&expr.Notrack{}})
	}
	add(f.tunnelled, toThisMachine(), drop())
}

// guardMachine adds the rules for what is for this machine, and for what it says itself.
func (f filter) guardMachine(add func(*nftables.Chain, ...match), r mesh.Rules) {
	// The host is not on the overlays, and our own ports are not for containers.
	add(f.input, iifname(mesh.MachineBridge), jump(f.asked))
	add(f.input, iifname(anyOverlay), drop())
	add(f.asked, ownPorts(r), jump(f.own))
	for _, port := range r.Own {
		add(f.own, dport(unix.IPPROTO_TCP, port), drop())
	}
	// The name server is for this machine's containers alone. While nobody listens there, between the end of one process and
	// the start of the next, they hear nothing rather than a refusal, and ask again.
	for _, at := range nameServers() {
		add(f.asked, to(at), dport(unix.IPPROTO_UDP, 53), accept())
		add(f.asked, to(at), dport(unix.IPPROTO_TCP, 53), accept())
		add(f.input, to(at), notIifname(mesh.MachineBridge), drop())
		add(f.output, from(at), jump(f.answered))
	}
	f.encloses(add, f.asked)
	add(f.answered, unreachable(unix.IPPROTO_ICMP, 3), drop())
	add(f.answered, unreachable(unix.IPPROTO_ICMPV6, 1), drop())
	add(f.answered, resets(), drop())
}

func nameServers() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(ends.NameServer4(), 32), netip.PrefixFrom(ends.NameServer6(), 128)}
}

// guardForward adds the rules for what passes through: what no container may reach, the administrator's chain, and then who
// may speak to whom. Most packets are of connections that were let through before: they pass as few rules as can be.
func (f filter) guardForward(add func(*nftables.Chain, ...match), r mesh.Rules) {
	add(f.forward, dport(unix.IPPROTO_UDP, r.DataPort), iifname(anyOfOurs), drop())
	add(f.forward, ownPorts(r), iifname(anyOfOurs), jump(f.peersOwn))
	for _, port := range r.Own {
		own := dport(unix.IPPROTO_TCP, port)
		add(f.peersOwn, own, family(unix.NFPROTO_IPV4), in(target4(), f.peers4), drop())
		add(f.peersOwn, own, family(unix.NFPROTO_IPV6), in(target6(), f.peers6), drop())
	}
	add(f.forward, match{&expr.Verdict{Kind: expr.VerdictJump, Chain: userChain}})
	// An overlay's bridged frames come by here where br_netfilter is on. Nothing is routed into one or out of it: not even what looks
	// like a part of somebody's connection.
	add(f.forward, iifname(anyOverlay), oifname(anyOverlay), accept())
	add(f.forward, iifname(anyOverlay), drop())
	add(f.forward, oifname(anyOverlay), drop())
	add(f.forward, established(), accept())
	f.encloses(add, f.forward)
	if r.Mesh {
		f.guardMesh(add)
	}
	add(f.forward, iifname(mesh.MachineBridge), oifname(mesh.MachineBridge), accept())
	// On the machine network containers of different machines do not reach each other: that is what overlays are for.
	for _, n := range r.Networks {
		add(f.forward, iifname(mesh.MachineBridge), to(n), reject())
	}
	add(f.forward, iifname(mesh.MachineBridge), accept())
	add(f.forward, oifname(mesh.MachineBridge), drop())
}

// ownPorts matches the range that our own TCP ports are in, so that hardly any other packet is compared with each of them.
func ownPorts(r mesh.Rules) match {
	if len(r.Own) == 0 {
		return dport(unix.IPPROTO_TCP, 0)
	}
	return append(protocol(unix.IPPROTO_TCP),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Range{
			Op: expr.CmpOpEq, Register: 1,
			FromData: binaryutil.BigEndian.PutUint16(slices.Min(r.Own)), ToData: binaryutil.BigEndian.PutUint16(slices.Max(r.Own)),
		},
	)
}

// fromContainers lets a container speak with the addresses that the tables give it, each with the MAC address of its interface, before
// anything is tracked. One of which the tables do not know yet says nothing: which networks it is on is known with its addresses.
//
// A container finds its gateway from a link-local IPv6 address or from none, which is good for nothing else: by it a container would
// reach its machine as nobody known.
func (f filter) fromContainers(add func(*nftables.Chain, ...match), r mesh.Rules) {
	for _, is4 := range []bool{true, false} {
		owners, address := f.maps.sets[mesh.Family(mesh.SetOwners, is4)], source4()
		if !is4 {
			address = source6()
		}
		address.DestRegister = reg2
		add(f.contained, ofFamily(is4), match{
			&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6}, address,
			&expr.Lookup{SourceRegister: reg0, SetName: owners.Name, SetID: owners.ID},
		}, goTo(f.known))
	}
	for _, p := range []netip.Prefix{linkLocal(), netip.PrefixFrom(netip.IPv6Unspecified(), 128)} {
		add(f.contained, from(p), protocol(unix.IPPROTO_ICMPV6), accept())
	}
	add(f.contained, drop())
	if r.Transparent {
		f.transparent(add)
	}
}

func linkLocal() netip.Prefix { return netip.MustParsePrefix("fe80::/10") }

// encloses lets containers whose networks are all internal begin nothing by the machine network. They answer what comes by a
// published port.
func (f filter) encloses(add func(*nftables.Chain, ...match), chain *nftables.Chain) {
	for _, is4 := range []bool{true, false} {
		load := source4()
		if !is4 {
			load = source6()
		}
		add(chain, iifname(mesh.MachineBridge), ofFamily(is4), in(load, f.maps.sets[mesh.Family(mesh.SetEnclosed, is4)]), begins(), reject())
	}
}

func iifname(name string) match { return ifname(expr.MetaKeyIIFNAME, expr.CmpOpEq, name) }
func oifname(name string) match { return ifname(expr.MetaKeyOIFNAME, expr.CmpOpEq, name) }

func notIifname(name string) match { return ifname(expr.MetaKeyIIFNAME, expr.CmpOpNeq, name) }
func notOifname(name string) match { return ifname(expr.MetaKeyOIFNAME, expr.CmpOpNeq, name) }

// ifname compares the whole zero-padded name, or of a prefix with a star only that many bytes.
func ifname(key expr.MetaKey, op expr.CmpOp, name string) match {
	data := make([]byte, unix.IFNAMSIZ)
	n := copy(data, name)
	if name[n-1] == '*' {
		data = data[:n-1]
	}
	return match{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: data}}
}

func family(f byte) match {
	return match{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f}}}
}

func dport(protocol byte, port uint16) match {
	return match{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

func protocol(number byte) match {
	return match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}}}
}

// unreachable is the type of the message that a port has nobody (RFC 792; RFC 4443). Others must pass: neighbours are found by them.
func unreachable(icmp, kind byte) match {
	return append(protocol(icmp),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{kind}},
	)
}

// resets looks at the flags of a TCP segment (RFC 9293, 3.1).
func resets() match {
	return append(protocol(unix.IPPROTO_TCP),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{4}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0}},
	)
}

// The offsets are those of RFC 791 and RFC 8200.
func source4() *expr.Payload { return network(12, 4) }
func target4() *expr.Payload { return network(16, 4) }
func source6() *expr.Payload { return network(8, 16) }
func target6() *expr.Payload { return network(24, 16) }

func network(offset, length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

func from(p netip.Prefix) match { return within(p, source4(), source6()) }
func to(p netip.Prefix) match   { return within(p, target4(), target6()) }

func within(p netip.Prefix, four, six *expr.Payload) match {
	load, proto := four, byte(unix.NFPROTO_IPV4)
	if p.Addr().Is6() {
		load, proto = six, unix.NFPROTO_IPV6
	}
	size := p.Addr().BitLen() / 8
	return append(family(proto), load,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(size), Mask: ipNet(p).Mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	)
}

func in(load *expr.Payload, s *nftables.Set) match {
	return match{load, &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}}
}

func toThisMachine() match {
	return match{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

func established() match {
	return match{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4, Xor: make([]byte, 4),
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func accept() match { return match{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() match   { return match{&expr.Verdict{Kind: expr.VerdictDrop}} }

func jump(c *nftables.Chain) match {
	return match{&expr.Verdict{Kind: expr.VerdictJump, Chain: c.Name}}
}
func goTo(c *nftables.Chain) match {
	return match{&expr.Verdict{Kind: expr.VerdictGoto, Chain: c.Name}}
}

// refuse says that nobody listens.
func refuse() match {
	return match{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}
}

// reject tells the sender at once that it is forbidden, rather than let it wait.
func reject() match {
	return match{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}
