package tables

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/ends"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/match"
)

// Prefixes of interface names, as nftables' "shoal*".
const (
	anyOfOurs  = "shoal*"
	anyOverlay = "shoalbr*"
)

// rules lists our rules, those of a chain in order.
func (f filter) rules(r kernel.Rules) []*nftables.Rule {
	var out []*nftables.Rule
	add := func(c *nftables.Chain, parts ...match.Part) {
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
	add(f.raw, match.Iifname(kernel.MachineBridge), match.GoTo(f.contained))
	f.fromContainers(add, r)
	f.guardMachine(add, r)
	f.guardForward(add, r)
	f.ask(add, r.Mesh)
	if r.Mesh {
		f.publish(add, r)
	}
	for _, b := range r.Blocks {
		add(f.leave, match.From(b), match.NotOifname(anyOfOurs), match.Part{&expr.Masq{}})
	}
	return out
}

// guardTunnels keeps strangers out of the tunnels: a frame is taken from a peer's address only, and never from a container, which
// could send one to a peer and be masqueraded into a valid one.
//
// Frames of peers are not tracked, neither here nor where they are sent: each connection inside would be tracked twice more, on each
// machine, for nobody.
func (f filter) guardTunnels(add func(*nftables.Chain, ...match.Part), r kernel.Rules) {
	tunnel := match.Dport(unix.IPPROTO_UDP, r.DataPort)
	add(f.raw, tunnel, match.Jump(f.tunnelled))
	add(f.tunnelled, match.Iifname(anyOfOurs), match.Drop())
	for _, is4 := range []bool{true, false} {
		source, target, peers := match.Source4(), match.Target4(), f.peers4
		if !is4 {
			source, target, peers = match.Source6(), match.Target6(), f.peers6
		}
		add(f.tunnelled, match.OfFamily(is4), match.In(source, peers), match.ToThisMachine(), match.Part{&expr.Notrack{}}, match.Accept())
		add(f.sent, tunnel, match.OfFamily(is4), match.In(target, peers), match.Part{&expr.Notrack{}})
	}
	add(f.tunnelled, match.ToThisMachine(), match.Drop())
}

// guardMachine adds the rules for what is for this machine, and for what it says itself.
func (f filter) guardMachine(add func(*nftables.Chain, ...match.Part), r kernel.Rules) {
	// The host is not on the overlays, and our own ports are not for containers.
	add(f.input, match.Iifname(kernel.MachineBridge), match.Jump(f.asked))
	add(f.input, match.Iifname(anyOverlay), match.Drop())
	add(f.asked, ownPorts(r), match.Jump(f.own))
	for _, port := range r.Own {
		add(f.own, match.Dport(unix.IPPROTO_TCP, port), match.Drop())
	}
	// The name server is for this machine's containers alone. While nobody listens there, between the end of one process and
	// the start of the next, they hear nothing rather than a refusal, and ask again.
	for _, at := range nameServers() {
		add(f.asked, match.To(at), match.Dport(unix.IPPROTO_UDP, 53), match.Accept())
		add(f.asked, match.To(at), match.Dport(unix.IPPROTO_TCP, 53), match.Accept())
		add(f.input, match.To(at), match.NotIifname(kernel.MachineBridge), match.Drop())
		add(f.output, match.From(at), match.Jump(f.answered))
	}
	f.encloses(add, f.asked)
	add(f.answered, match.Unreachable(unix.IPPROTO_ICMP, 3), match.Drop())
	add(f.answered, match.Unreachable(unix.IPPROTO_ICMPV6, 1), match.Drop())
	add(f.answered, match.Resets(), match.Drop())
}

func nameServers() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(ends.NameServer4(), 32), netip.PrefixFrom(ends.NameServer6(), 128)}
}

// guardForward adds the rules for what passes through: what no container may reach, the administrator's chain, and then who
// may speak to whom. Most packets are of connections that were let through before: they pass as few rules as can be.
func (f filter) guardForward(add func(*nftables.Chain, ...match.Part), r kernel.Rules) {
	add(f.forward, match.Dport(unix.IPPROTO_UDP, r.DataPort), match.Iifname(anyOfOurs), match.Drop())
	add(f.forward, ownPorts(r), match.Iifname(anyOfOurs), match.Jump(f.peersOwn))
	for _, port := range r.Own {
		own := match.Dport(unix.IPPROTO_TCP, port)
		add(f.peersOwn, own, match.Family(unix.NFPROTO_IPV4), match.In(match.Target4(), f.peers4), match.Drop())
		add(f.peersOwn, own, match.Family(unix.NFPROTO_IPV6), match.In(match.Target6(), f.peers6), match.Drop())
	}
	add(f.forward, match.Part{&expr.Verdict{Kind: expr.VerdictJump, Chain: userChain}})
	// An overlay's bridged frames come by here where br_netfilter is on. Nothing is routed into one or out of it: not even what looks
	// like a part of somebody's connection.
	add(f.forward, match.Iifname(anyOverlay), match.Oifname(anyOverlay), match.Accept())
	add(f.forward, match.Iifname(anyOverlay), match.Drop())
	add(f.forward, match.Oifname(anyOverlay), match.Drop())
	add(f.forward, match.Established(), match.Accept())
	f.encloses(add, f.forward)
	if r.Mesh {
		f.guardMesh(add)
	}
	add(f.forward, match.Iifname(kernel.MachineBridge), match.Oifname(kernel.MachineBridge), match.Accept())
	// On the machine network containers of different machines do not reach each other: that is what overlays are for.
	for _, n := range r.Networks {
		add(f.forward, match.Iifname(kernel.MachineBridge), match.To(n), match.Reject())
	}
	add(f.forward, match.Iifname(kernel.MachineBridge), match.Accept())
	add(f.forward, match.Oifname(kernel.MachineBridge), match.Drop())
}

// ownPorts matches the range that our own TCP ports are in, so that hardly any other packet is compared with each of them.
func ownPorts(r kernel.Rules) match.Part {
	if len(r.Own) == 0 {
		return match.Dport(unix.IPPROTO_TCP, 0)
	}
	return append(match.Protocol(unix.IPPROTO_TCP),
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
func (f filter) fromContainers(add func(*nftables.Chain, ...match.Part), r kernel.Rules) {
	for _, is4 := range []bool{true, false} {
		owners, address := f.maps.sets[kernel.Family(kernel.SetOwners, is4)], match.Source4()
		if !is4 {
			address = match.Source6()
		}
		address.DestRegister = match.Reg2
		add(f.contained, match.OfFamily(is4), match.Part{
			&expr.Payload{DestRegister: match.Reg0, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6}, address,
			&expr.Lookup{SourceRegister: match.Reg0, SetName: owners.Name, SetID: owners.ID},
		}, match.GoTo(f.known))
	}
	for _, p := range []netip.Prefix{linkLocal(), netip.PrefixFrom(netip.IPv6Unspecified(), 128)} {
		add(f.contained, match.From(p), match.Protocol(unix.IPPROTO_ICMPV6), match.Accept())
	}
	add(f.contained, match.Drop())
	if r.Transparent {
		f.transparent(add)
	}
}

func linkLocal() netip.Prefix { return netip.MustParsePrefix("fe80::/10") }

// encloses lets containers whose networks are all internal begin nothing by the machine network. They answer what comes by a
// published port.
func (f filter) encloses(add func(*nftables.Chain, ...match.Part), chain *nftables.Chain) {
	for _, is4 := range []bool{true, false} {
		load := match.Source4()
		if !is4 {
			load = match.Source6()
		}
		add(chain, match.Iifname(kernel.MachineBridge), match.OfFamily(is4), match.In(load, f.maps.sets[kernel.Family(kernel.SetEnclosed, is4)]), match.Begins(), match.Reject())
	}
}
