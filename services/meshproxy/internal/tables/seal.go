package tables

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// anySeal are the WireGuard devices.
const anySeal = mesh.SealPrefix + "*"

// seal comes before the rules that keep strangers out of the tunnels: what comes by WireGuard is from who has the key, and is a tunnel's
// packet; what must come by it comes by nothing else. And what must go by it is held back where it would go by something else, because
// the device or its route is not there.
func (f filter) seal(add func(*nftables.Chain, ...match), r mesh.Rules) {
	tunnel := dport(unix.IPPROTO_UDP, r.DataPort)
	add(f.raw, iifname(anySeal), tunnel, match{&expr.Notrack{}}, accept())
	add(f.raw, iifname(anySeal), drop())
	add(f.tunnelled, f.sealedNetwork(), drop())
	add(f.sent, tunnel, oifname(anySeal), match{&expr.Notrack{}}, accept())
	add(f.sent, tunnel, f.sealedNetwork(), drop())
	// Before they are in an envelope packets are held back too: while the tunnel is made anew no route leads into it, and connections
	// that were led there would go on by whatever route leads anywhere. What comes out of a task goes back by where it was asked from.
	for _, n := range r.SealedNetworks {
		add(f.forward, to(n), notOifname(anyOfOurs), drop())
		add(f.output, to(n), notOifname(anyOfOurs), notOifname("lo"), drop())
	}
	if len(r.SealedNetworks) > 0 {
		add(f.forward, iifname(mesh.MachineBridge), ctBits(expr.CtKeyMARK, mesh.ReturnFlag), notOifname(anyOfOurs), drop())
	}
}

// sealedNetwork looks at the identifier in the VXLAN header, behind UDP's 8 bytes and 4 of its own. The byte after it is no part of it,
// and whoever sends may write there what he likes.
func (f filter) sealedNetwork() match {
	set := f.maps.sets[mesh.SetSealed]
	return match{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 12, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{0xff, 0xff, 0xff, 0}, Xor: make([]byte, 4)},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
	}
}
