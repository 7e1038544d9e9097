package match

import (
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// statusDNAT is IPS_DST_NAT (nf_conntrack_common.h): the destination was translated.
const statusDNAT = 1 << 5

// Registers of 32 bits; a wide one is four of them. What the kernel compares as a concatenation lies side by side.
const (
	Reg0 = unix.NFT_REG32_00
	Reg1 = unix.NFT_REG32_01
	Reg2 = unix.NFT_REG32_02
	Reg4 = unix.NFT_REG32_04
	Reg5 = unix.NFT_REG32_05
)

// OfFamily matches IPv4 packets, or IPv6 ones.
func OfFamily(is4 bool) Part {
	if is4 {
		return Family(unix.NFPROTO_IPV4)
	}
	return Family(unix.NFPROTO_IPV6)
}

// NotLoopback leaves 127.0.0.0/8 and ::1 to the meshproxy's listener: the kernel would take their answers for martians.
func NotLoopback(is4 bool) Part {
	if is4 {
		return Part{
			Target4(), &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{0xff, 0, 0, 0}, Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{127, 0, 0, 0}},
		}
	}
	return Part{Target6(), &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: netip.IPv6Loopback().AsSlice()}}
}

// Begins matches the first packet of a connection.
func Begins() Part { return CtBits(expr.CtKeySTATE, expr.CtStateBitNEW) }

// Translated matches connections whose destination was translated.
func Translated() Part { return CtBits(expr.CtKeySTATUS, statusDNAT) }

// CtBits matches where any of these bits is set.
func CtBits(key expr.CtKey, bits uint32) Part {
	return Part{&expr.Ct{Register: 1, Key: key}, Masked(bits), &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)}}
}

// Masked keeps these bits of the number in register 1.
func Masked(bits uint32) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)}
}

// Reply matches what goes back to who began.
func Reply() Part { return direction(1) }

// Original matches what goes the way that the connection began.
func Original() Part { return direction(0) }

func direction(d byte) Part {
	return Part{&expr.Ct{Register: 1, Key: expr.CtKeyDIRECTION}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{d}}}
}

// Snat translates the source address.
func Snat(to netip.Addr) Part {
	family := uint32(unix.NFPROTO_IPV4)
	if to.Is6() {
		family = unix.NFPROTO_IPV6
	}
	return Part{
		&expr.Immediate{Register: 1, Data: to.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: 1},
	}
}

// ByClient chooses by the client's address: every machine chooses the same.
func ByClient(is4 bool, size uint32) Part {
	load := Source4()
	if !is4 {
		load = Source6()
	}
	load.DestRegister = Reg4
	return Part{load, &expr.Hash{
		SourceRegister: Reg4, DestRegister: Reg2, Length: load.Len, Modulus: size, Seed: 1, Type: expr.HashTypeJenkins,
	}}
}

// PortKey loads protocol and port as the maps have them.
func PortKey(protocol, port uint32) Part {
	return Part{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: protocol},
		&expr.Payload{DestRegister: port, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}
