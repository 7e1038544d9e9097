package network

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// keep leads frames for a MAC address to its port, whatever others send: a bridge that learns takes who spoke last under an address
// for its owner. The port is not locked to the address as well: where an entry is lost the bridge floods, and the container would
// else be silent for good.
func keep(host *netlink.Handle, port netlink.Link, mac net.HardwareAddr) error {
	entry := &netlink.Neigh{
		LinkIndex: port.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, State: netlink.NUD_NOARP, HardwareAddr: mac,
	}
	return errors.Join(host.NeighSet(entry), host.LinkSetLearning(port, false))
}

// know has a container know its gateway, so that no neighbour can answer for it. The meshproxy keeps the bridge's address fixed.
func know(inside *netlink.Handle, end netlink.Link, gateway netip.Addr, mac net.HardwareAddr) error {
	return inside.NeighSet(&netlink.Neigh{
		LinkIndex: end.Attrs().Index, State: netlink.NUD_PERMANENT, Type: unix.RTN_UNICAST, IP: gateway.AsSlice(), HardwareAddr: mac,
	})
}
