package mesh

import "net/netip"

const (
	// TransparentFlag is on packets that containers send to a connection which the meshproxy has opened with its client's
	// address.
	TransparentFlag = 0x8000_0000
	// transparentTable is the routing table by which the machine takes them as its own.
	transparentTable = 8478
)

// transparent has the machine take what containers answer to the meshproxy, whatever address it spoke with.
func transparent(k *Kernel) {
	k.Rules.Transparent = true
	for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		k.Routes[Route{Link: MachineBridge, Prefix: netip.PrefixFrom(all, 0), Table: transparentTable, Local: true}] = struct{}{}
		k.Policies[Policy{IPv6: all.Is6(), In: MachineBridge, Mark: TransparentFlag, Mask: TransparentFlag, Table: transparentTable}] = struct{}{}
	}
}
