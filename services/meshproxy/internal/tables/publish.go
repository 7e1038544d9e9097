package tables

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// statusDNAT is IPS_DST_NAT (nf_conntrack_common.h): the destination was translated.
const statusDNAT = 1 << 5

// publish adds the rules for published ports.
func (f filter) publish(add func(*nftables.Chain, ...match), r mesh.Rules) {
	// The sender of a new connection from the tunnel is noted on it, and a reply of a container takes the note along. This
	// comes right after conntrack: marks that others add later are beside it.
	add(f.mark, begins(), iifname(mesh.MachineTunnel), match{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: mesh.SetSenders, SetID: f.maps.sets[mesh.SetSenders].ID},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true},
	})
	add(f.mark, ctBits(expr.CtKeyMARK, mesh.ReturnFlag), reply(), iifname(mesh.MachineBridge), match{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1}, masked(mesh.ReturnMask),
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	})
	// The administrator's chain sees what is dialled, before it is translated.
	for _, is4 := range []bool{true, false} {
		for _, name := range []string{mesh.SetBound, mesh.SetPorts} {
			add(f.dialled, ofFamily(is4), original(), f.find(name, is4, nil), toThisMachine(), match{&expr.Verdict{Kind: expr.VerdictJump, Chain: userChain}})
		}
	}
	for _, chain := range []*nftables.Chain{f.dstnat, f.local} {
		for _, is4 := range []bool{true, false} {
			// These chains see the first packet of each connection, so what is found here is one.
			for _, name := range []string{mesh.SetCountedAt, mesh.SetCounted} {
				add(chain, ofFamily(is4), toThisMachine(), notLoopback(is4), f.find(name, is4, nil))
			}
			for _, name := range []string{mesh.SetBound, mesh.SetPorts} {
				// A rule cannot look into one map with what it has found in another, or nft would not list it: the turn is
				// carried over in the packet's priority, which nobody has set so early and forwarding sets anew.
				add(chain, ofFamily(is4), toThisMachine(), notLoopback(is4), f.find(name, is4, match{
					&expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: 1},
					&expr.Verdict{Kind: expr.VerdictGoto, Chain: f.choose(is4).Name},
				}))
			}
		}
	}
	for _, is4 := range []bool{true, false} {
		turns := f.maps.sets[mesh.Family(mesh.SetTurns, is4)]
		add(f.choose(is4), match{
			&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: 1},
			&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: turns.Name, SetID: turns.ID},
		})
		// A change may come between the look for the port and that for its turn or place, which have then gone: the first place
		// is there as long as there is any.
		first := &expr.Immediate{Register: reg2, Data: binaryutil.NativeEndian.PutUint32(0)}
		add(f.choose(is4), f.maps.leadTo(is4, match{first}))
	}
	// Only what was translated may enter the tunnel here, and nothing that comes out of it is for the machine itself. To one port
	// meshproxies send to find out whether packets come through: it is refused, and the refusal is the answer.
	knocked := dport(unix.IPPROTO_UDP, mesh.EchoPort)
	add(f.input, begins(), iifname(mesh.MachineTunnel), knocked, refuse())
	add(f.output, begins(), oifname(mesh.MachineTunnel), knocked, accept())
	add(f.input, begins(), iifname(mesh.MachineTunnel), drop())
	add(f.output, begins(), oifname(mesh.MachineTunnel), reject())
	for _, is4 := range []bool{true, false} {
		add(f.leave, f.pair(mesh.SetHairpins, is4), match{&expr.Masq{}})
		if gateway := r.Gateways[map[bool]int{true: 0, false: 1}[is4]]; gateway.IsValid() {
			add(f.leave, oifname(mesh.MachineTunnel), f.pair(mesh.SetReturns, is4), snat(gateway))
		}
	}
}

// guardMesh adds the rules for forwarded traffic of published ports.
func (f filter) guardMesh(add func(*nftables.Chain, ...match)) {
	add(f.forward, oifname(mesh.MachineTunnel), translated(), accept())
	add(f.forward, oifname(mesh.MachineTunnel), reject())
	add(f.forward, iifname(mesh.MachineTunnel), oifname(mesh.MachineBridge), accept())
	add(f.forward, iifname(mesh.MachineTunnel), drop())
	add(f.forward, oifname(mesh.MachineBridge), translated(), accept())
}

// find looks a published port up, by its address too if it is a bound one, and goes on with what was found in register 1.
func (f filter) find(name string, is4 bool, then match) match {
	s := f.maps.sets[mesh.Family(name, is4)]
	var load match
	switch {
	case name == mesh.SetPorts || name == mesh.SetCounted:
		load = portKey(reg0, reg1)
	case is4:
		target := target4()
		target.DestRegister = reg0
		load = append(match{target}, portKey(reg1, reg2)...)
	default:
		target := target6()
		target.DestRegister = reg0
		load = append(match{target}, portKey(reg4, reg5)...)
	}
	look := &expr.Lookup{SourceRegister: reg0, SetName: s.Name, SetID: s.ID}
	if s.IsMap {
		look.DestRegister, look.IsDestRegSet = 1, true
	}
	return append(append(load, look), then...)
}

// pair matches source and destination together.
func (f filter) pair(set string, is4 bool) match {
	s := f.maps.sets[mesh.Family(set, is4)]
	from, to, second := source4(), target4(), uint32(reg1)
	if !is4 {
		from, to, second = source6(), target6(), reg4
	}
	from.DestRegister, to.DestRegister = reg0, second
	return append(ofFamily(is4), from, to, &expr.Lookup{SourceRegister: reg0, SetName: s.Name, SetID: s.ID})
}

func ofFamily(is4 bool) match {
	if is4 {
		return family(unix.NFPROTO_IPV4)
	}
	return family(unix.NFPROTO_IPV6)
}

// notLoopback leaves 127.0.0.0/8 and ::1 to the meshproxy's listener: the kernel would take their answers for martians.
func notLoopback(is4 bool) match {
	if is4 {
		return match{
			target4(), &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{0xff, 0, 0, 0}, Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{127, 0, 0, 0}},
		}
	}
	return match{target6(), &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: netip.IPv6Loopback().AsSlice()}}
}

func begins() match     { return ctBits(expr.CtKeySTATE, expr.CtStateBitNEW) }
func translated() match { return ctBits(expr.CtKeySTATUS, statusDNAT) }

func ctBits(key expr.CtKey, bits uint32) match {
	return match{&expr.Ct{Register: 1, Key: key}, masked(bits), &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)}}
}

// masked keeps these bits of the number in register 1.
func masked(bits uint32) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)}
}

// reply matches what goes back to who began, original what comes from there.
func reply() match    { return direction(1) }
func original() match { return direction(0) }

func direction(d byte) match {
	return match{&expr.Ct{Register: 1, Key: expr.CtKeyDIRECTION}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{d}}}
}

func snat(to netip.Addr) match {
	family := uint32(unix.NFPROTO_IPV4)
	if to.Is6() {
		family = unix.NFPROTO_IPV6
	}
	return match{
		&expr.Immediate{Register: 1, Data: to.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: 1},
	}
}
