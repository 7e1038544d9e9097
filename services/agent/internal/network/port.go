package network

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// keep leads frames for a MAC address to its port, whatever others send: a bridge that learns takes who spoke last under an address
// for its owner. The port is locked to it as well: what a container sends under another MAC address, its neighbour's even, goes
// nowhere. A locked port whose entry is lost is silent until the meshproxy has put it back: at once, or when it starts.
func keep(host *netlink.Handle, port netlink.Link, mac net.HardwareAddr) error {
	entry := &netlink.Neigh{
		LinkIndex: port.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, State: netlink.NUD_NOARP, HardwareAddr: mac,
	}
	// The meshproxy reads there to which address the port is locked, and puts back an entry that was lost while it did not run.
	return errors.Join(host.LinkSetAlias(port, mac.String()), host.NeighSet(entry), host.LinkSetLearning(port, false), lock(port))
}

// lock has a bridge take from a port only what its forwarding entries place there (bridge(8)). A kernel before 5.18 does not know it
// and passes over it. The library has no word for it.
func lock(port netlink.Link) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(port.Attrs().Index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(nl.IFLA_BRPORT_LOCKED, []byte{1})
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// know has a container know its gateway, so that no neighbour can answer for it. The meshproxy keeps the bridge's address fixed.
func know(inside *netlink.Handle, end netlink.Link, gateway netip.Addr, mac net.HardwareAddr) error {
	return inside.NeighSet(&netlink.Neigh{
		LinkIndex: end.Attrs().Index, State: netlink.NUD_PERMANENT, Type: unix.RTN_UNICAST, IP: gateway.AsSlice(), HardwareAddr: mac,
	})
}

// linkLocal says which link-local address an interface gives itself, before it is up. On the machine network none: by one a container
// would reach its neighbours from port to port of the bridge, where the packet filter does not see it; what it needs is its gateway
// alone, which it knows. On an overlay the one that follows from its MAC address, whatever its namespace makes of others: with any other
// it is not heard.
func linkLocal(inside *netlink.Handle, end netlink.Link, overlay bool) error {
	const byMAC, none = 0, 1 // IN6_ADDR_GEN_MODE_EUI64, _NONE (linux/if_link.h)
	mode := none
	if overlay {
		mode = byMAC
	}
	if err := inside.LinkSetIP6AddrGenMode(end, mode); !noIPv6(netip.IPv6LinkLocalAllNodes(), err) {
		return err
	}
	return nil
}
