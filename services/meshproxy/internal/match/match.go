// Package match has the words of which the packet filter's rules are made: what a packet is compared with, and what then
// happens to it.
//
// It owns no rule and never touches the kernel. It is pure, and safe for concurrent use.
package match

import (
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Part is a part of a rule: expressions in the kernel's own terms (nftables(8) has the words for them).
type Part []expr.Any

// Iifname matches what came in by an interface; a star at the end of the name stands for anything.
func Iifname(name string) Part { return ifname(expr.MetaKeyIIFNAME, expr.CmpOpEq, name) }

// Oifname matches what goes out by an interface.
func Oifname(name string) Part { return ifname(expr.MetaKeyOIFNAME, expr.CmpOpEq, name) }

// NotIifname matches what came in by any other.
func NotIifname(name string) Part { return ifname(expr.MetaKeyIIFNAME, expr.CmpOpNeq, name) }

// NotOifname matches what goes out by any other.
func NotOifname(name string) Part { return ifname(expr.MetaKeyOIFNAME, expr.CmpOpNeq, name) }

// ifname compares the whole zero-padded name, or of a prefix with a star only that many bytes.
func ifname(key expr.MetaKey, op expr.CmpOp, name string) Part {
	data := make([]byte, unix.IFNAMSIZ)
	n := copy(data, name)
	if name[n-1] == '*' {
		data = data[:n-1]
	}
	return Part{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: data}}
}

// Family matches packets of an NFPROTO number.
func Family(f byte) Part {
	return Part{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f}}}
}

// Dport matches a transport protocol and its destination port.
func Dport(protocol byte, port uint16) Part {
	return Part{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

// Protocol matches a transport protocol.
func Protocol(number byte) Part {
	return Part{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}}}
}

// Unreachable is the type of the message that a port has nobody (RFC 792; RFC 4443). Others must pass: neighbours are found by them.
func Unreachable(icmp, kind byte) Part {
	return append(Protocol(icmp),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{kind}},
	)
}

// Resets looks at the flags of a TCP segment (RFC 9293, 3.1).
func Resets() Part {
	return append(Protocol(unix.IPPROTO_TCP),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{4}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0}},
	)
}

// Source4 loads the source address of an IPv4 packet into register 1; RFC 791 has the offsets, RFC 8200 those of IPv6.
func Source4() *expr.Payload { return network(12, 4) }

// Target4 loads the destination address of an IPv4 packet.
func Target4() *expr.Payload { return network(16, 4) }

// Source6 loads the source address of an IPv6 packet.
func Source6() *expr.Payload { return network(8, 16) }

// Target6 loads the destination address of an IPv6 packet.
func Target6() *expr.Payload { return network(24, 16) }

func network(offset, length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

// From matches packets from a network.
func From(p netip.Prefix) Part { return within(p, Source4(), Source6()) }

// To matches packets to a network.
func To(p netip.Prefix) Part { return within(p, Target4(), Target6()) }

func within(p netip.Prefix, four, six *expr.Payload) Part {
	load, proto := four, byte(unix.NFPROTO_IPV4)
	if p.Addr().Is6() {
		load, proto = six, unix.NFPROTO_IPV6
	}
	size := p.Addr().BitLen() / 8
	return append(Family(proto), load,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(size), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()), Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	)
}

// In looks a loaded value up in a set.
func In(load *expr.Payload, s *nftables.Set) Part {
	return Part{load, &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}}
}

// ToThisMachine matches what is for an address of this machine.
func ToThisMachine() Part {
	return Part{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// Established matches what belongs to a connection that was let through.
func Established() Part {
	return Part{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4, Xor: make([]byte, 4),
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// Accept lets the packet pass this hook.
func Accept() Part { return Part{&expr.Verdict{Kind: expr.VerdictAccept}} }

// Drop takes the packet away without a word.
func Drop() Part { return Part{&expr.Verdict{Kind: expr.VerdictDrop}} }

// Jump goes on in another chain, and comes back from it.
func Jump(c *nftables.Chain) Part {
	return Part{&expr.Verdict{Kind: expr.VerdictJump, Chain: c.Name}}
}

// GoTo goes on in another chain for good.
func GoTo(c *nftables.Chain) Part {
	return Part{&expr.Verdict{Kind: expr.VerdictGoto, Chain: c.Name}}
}

// Refuse says that nobody listens.
func Refuse() Part {
	return Part{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}
}

// Reject tells the sender at once that it is forbidden, rather than let it wait.
func Reject() Part {
	return Part{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}
