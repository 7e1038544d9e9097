package tables

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/match"
)

// anySeal are the WireGuard devices.
const anySeal = kernel.SealPrefix + "*"

// seal comes before the rules that keep strangers out of the tunnels: what comes by WireGuard is from who has the key, and is a tunnel's
// packet; what must come by it comes by nothing else. And what must go by it is held back where it would go by something else, because
// the device or its route is not there.
func (f filter) seal(add func(*nftables.Chain, ...match.Part), r kernel.Rules) {
	tunnel := match.Dport(unix.IPPROTO_UDP, r.DataPort)
	add(f.raw, match.Iifname(anySeal), tunnel, match.Part{&expr.Notrack{}}, match.Accept())
	add(f.raw, match.Iifname(anySeal), match.Drop())
	add(f.tunnelled, f.sealedNetwork(), match.Drop())
	add(f.sent, tunnel, match.Oifname(anySeal), match.Part{&expr.Notrack{}}, match.Accept())
	add(f.sent, tunnel, f.sealedNetwork(), match.Drop())
	// Before they are in an envelope packets are held back too: while the tunnel is made anew no route leads into it, and connections
	// that were led there would go on by whatever route leads anywhere. What comes out of a task goes back by where it was asked from.
	for _, n := range r.SealedNetworks {
		add(f.forward, match.To(n), match.NotOifname(anyOfOurs), match.Drop())
		add(f.output, match.To(n), match.NotOifname(anyOfOurs), match.NotOifname("lo"), match.Drop())
	}
	if len(r.SealedNetworks) > 0 {
		add(f.forward, match.Iifname(kernel.MachineBridge), match.CtBits(expr.CtKeyMARK, kernel.ReturnFlag), match.NotOifname(anyOfOurs), match.Drop())
	}
}

// sealedNetwork looks at the identifier in the VXLAN header, behind UDP's 8 bytes and 4 of its own. The byte after it is no part of it,
// and whoever sends may write there what he likes.
func (f filter) sealedNetwork() match.Part {
	set := f.maps.sets[kernel.SetSealed]
	return match.Part{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 12, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{0xff, 0xff, 0xff, 0}, Xor: make([]byte, 4)},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
	}
}
