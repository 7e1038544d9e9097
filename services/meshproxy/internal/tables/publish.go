package tables

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/match"
)

// publish adds the rules for published ports.
func (f filter) publish(add func(*nftables.Chain, ...match.Part), r kernel.Rules) {
	// The sender of a new connection from the tunnel is noted on it, and a reply of a container takes the note along. This
	// comes right after conntrack: marks that others add later are beside it.
	add(f.mark, match.Begins(), match.Iifname(kernel.MachineTunnel), match.Part{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: kernel.SetSenders, SetID: f.maps.sets[kernel.SetSenders].ID},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true},
	})
	add(f.mark, match.CtBits(expr.CtKeyMARK, kernel.ReturnFlag), match.Reply(), match.Iifname(kernel.MachineBridge), match.Part{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1}, match.Masked(kernel.ReturnMask),
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	})
	f.lead(add)
	// Only what was translated may enter the tunnel here, and nothing that comes out of it is for the machine itself. To one port
	// meshproxies send to find out whether packets come through: it is refused, and the refusal is the answer.
	knocked := match.Dport(unix.IPPROTO_UDP, kernel.EchoPort)
	add(f.input, match.Begins(), match.Iifname(kernel.MachineTunnel), knocked, match.Refuse())
	add(f.output, match.Begins(), match.Oifname(kernel.MachineTunnel), knocked, match.Accept())
	add(f.input, match.Begins(), match.Iifname(kernel.MachineTunnel), match.Drop())
	add(f.output, match.Begins(), match.Oifname(kernel.MachineTunnel), match.Reject())
	for _, is4 := range []bool{true, false} {
		add(f.leave, f.pair(kernel.SetHairpins, is4), match.Part{&expr.Masq{}})
		if gateway := r.Gateways[map[bool]int{true: 0, false: 1}[is4]]; gateway.IsValid() {
			add(f.leave, match.Oifname(kernel.MachineTunnel), f.pair(kernel.SetReturns, is4), match.Snat(gateway))
		}
	}
}

// ask has the administrator's chain see what is dialled, before it is translated or comes to the meshproxy. What is no such packet is
// not looked up, and what the machine says to itself is nobody's.
func (f filter) ask(add func(*nftables.Chain, ...match.Part), kernelCarries bool) {
	add(f.dialled, match.Reply(), match.Accept())
	add(f.dialled, match.Iifname(kernel.MachineTunnel), match.Accept())
	add(f.dialled, match.Iifname("lo"), match.Accept())
	sets := []string{kernel.SetListenedAt, kernel.SetListened}
	if kernelCarries {
		sets = []string{kernel.SetBound, kernel.SetPorts, kernel.SetListenedAt, kernel.SetListened}
	}
	for _, is4 := range []bool{true, false} {
		for _, name := range sets {
			add(f.dialled, match.OfFamily(is4), match.Original(), f.find(name, is4, nil), match.ToThisMachine(), match.Part{&expr.Verdict{Kind: expr.VerdictJump, Chain: userChain}})
		}
	}
}

// lead has what is dialled on this machine translated to one of the port's tasks.
func (f filter) lead(add func(*nftables.Chain, ...match.Part)) {
	for _, chain := range []*nftables.Chain{f.dstnat, f.local} {
		add(chain, match.ToThisMachine(), match.GoTo(f.here))
	}
	for _, is4 := range []bool{true, false} {
		// This chain sees the first packet of each connection, so what is found here is one.
		for _, name := range []string{kernel.SetCountedAt, kernel.SetCounted} {
			add(f.here, match.OfFamily(is4), match.NotLoopback(is4), f.find(name, is4, nil))
		}
		for _, name := range []string{kernel.SetBound, kernel.SetPorts} {
			// A rule cannot look into one map with what it has found in another, or nft would not list it: the turn, and then the
			// place in it, are carried over in the packet's priority, which nobody has set so early and forwarding sets anew.
			add(f.here, match.OfFamily(is4), match.NotLoopback(is4), f.find(name, is4, match.Part{
				&expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: 1},
				&expr.Verdict{Kind: expr.VerdictGoto, Chain: f.choose(is4).Name},
			}))
		}
	}
	for _, is4 := range []bool{true, false} {
		turns := f.maps.sets[kernel.Family(kernel.SetTurns, is4)]
		add(f.choose(is4), match.Part{
			&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: 1},
			&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: turns.Name, SetID: turns.ID},
		})
		add(f.choose(is4), f.maps.leadTo(is4, match.Part{&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: match.Reg2}}))
		// A change may come between the look for the port and that for its turn or place, which have then gone: the first place
		// is there as long as there is any.
		first := &expr.Immediate{Register: match.Reg2, Data: binaryutil.NativeEndian.PutUint32(0)}
		add(f.choose(is4), f.maps.leadTo(is4, match.Part{first}))
	}
}

// guardMesh adds the rules for forwarded traffic of published ports.
func (f filter) guardMesh(add func(*nftables.Chain, ...match.Part)) {
	add(f.forward, match.Oifname(kernel.MachineTunnel), match.Translated(), match.Accept())
	add(f.forward, match.Oifname(kernel.MachineTunnel), match.Reject())
	add(f.forward, match.Iifname(kernel.MachineTunnel), match.Oifname(kernel.MachineBridge), match.Accept())
	add(f.forward, match.Iifname(kernel.MachineTunnel), match.Drop())
	add(f.forward, match.Oifname(kernel.MachineBridge), match.Translated(), match.Accept())
}

// find looks a published port up, by its address too if it is a bound one, and goes on with what was found in register 1.
func (f filter) find(name string, is4 bool, then match.Part) match.Part {
	s := f.maps.sets[kernel.Family(name, is4)]
	var load match.Part
	switch {
	case name == kernel.SetPorts || name == kernel.SetCounted || name == kernel.SetListened:
		load = match.PortKey(match.Reg0, match.Reg1)
	case is4:
		target := match.Target4()
		target.DestRegister = match.Reg0
		load = append(match.Part{target}, match.PortKey(match.Reg1, match.Reg2)...)
	default:
		target := match.Target6()
		target.DestRegister = match.Reg0
		load = append(match.Part{target}, match.PortKey(match.Reg4, match.Reg5)...)
	}
	look := &expr.Lookup{SourceRegister: match.Reg0, SetName: s.Name, SetID: s.ID}
	if s.IsMap {
		look.DestRegister, look.IsDestRegSet = 1, true
	}
	return append(append(load, look), then...)
}

// pair matches source and destination together.
func (f filter) pair(set string, is4 bool) match.Part {
	s := f.maps.sets[kernel.Family(set, is4)]
	from, to, second := match.Source4(), match.Target4(), uint32(match.Reg1)
	if !is4 {
		from, to, second = match.Source6(), match.Target6(), match.Reg4
	}
	from.DestRegister, to.DestRegister = match.Reg0, second
	return append(match.OfFamily(is4), from, to, &expr.Lookup{SourceRegister: match.Reg0, SetName: s.Name, SetID: s.ID})
}
