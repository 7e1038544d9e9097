package mesh

import (
	"net/netip"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

// Voices are what the containers of a machine may say of themselves on its bridges: the MAC address of an interface with each address
// that it has, as elements of SetOwners. On an overlay an interface has the link-local address that its kernel makes of the MAC
// address, too.
func (m *Model) Voices(node string) map[kernel.Slot]struct{} {
	out := map[kernel.Slot]struct{}{}
	voice := func(mac string, a netip.Addr) {
		out[kernel.Slot{Set: kernel.Family(kernel.SetOwners, a.Is4()), Key: mac + " " + a.String()}] = struct{}{}
	}
	voices := func(addresses []string) (own netip.Addr) {
		own, err := first(addresses)
		if err != nil || !own.Is4() {
			return netip.Addr{} // it shares the machine's network; or its interface has no address of its own making
		}
		for _, text := range addresses {
			if a, err := netip.ParseAddr(text); err == nil {
				voice(MAC(own), a.Unmap())
			}
		}
		return own
	}
	for task := range m.LocalTasks() {
		voices(task.GetAddresses())
	}
	for _, n := range m.networks {
		for _, e := range n.GetEntries() {
			if e.GetNodeId() != node {
				continue
			}
			if own := voices(e.GetAddresses()); own.IsValid() {
				voice(MAC(own), linkLocal(own))
			}
		}
	}
	return out
}

// linkLocal is the address that a kernel gives an interface with our MAC address for an IPv4 address (RFC 4291, appendix A): 02:42
// with its universal bit turned over, ff:fe in the middle.
func linkLocal(a netip.Addr) netip.Addr {
	b := a.As4()
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: 0x00, 9: 0x42, 10: b[0], 11: 0xff, 12: 0xfe, 13: b[1], 14: b[2], 15: b[3]})
}
