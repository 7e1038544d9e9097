package tables

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

func (k *Kernel) changeLink(v kernel.Verb, l kernel.Link) error {
	if v == kernel.Add && l.Seal && k.spawn != nil {
		if err := k.spawn(l.Name, l.MTU); err != nil {
			return err
		}
	} else if v == kernel.Add {
		made, err := makeLink(l)
		if err != nil {
			return err
		}
		if err := k.nl.LinkAdd(made); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	link, err := k.nl.LinkByName(l.Name)
	if err != nil {
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone && v == kernel.Remove {
			return nil
		}
		return err
	}
	switch v {
	case kernel.Remove:
		return k.nl.LinkDel(link)
	case kernel.Up:
		return k.nl.LinkSetUp(link)
	}
	if v == kernel.Add && l.VNI == 0 && !l.Seal {
		// A bridge follows its ports' MTU until it is told one that differs from what it has.
		if err := k.nl.LinkSetMTU(link, l.MTU-1); err != nil {
			return fmt.Errorf("set the MTU: %w", err)
		}
	}
	return k.shape(link, l)
}

// sealed says that it is a tunnel whose packets must go by WireGuard: it has no end of its own on the wire.
func sealed(l *kernel.Link) bool { return l != nil && l.VNI != 0 && !l.Local.IsValid() }

// makeLink has it come with its MAC address: an agent that waits for a bridge tells a container at once under which address its
// gateway is, and of a later one the container would never hear.
func makeLink(l kernel.Link) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = l.Name, l.MTU
	if l.MAC != "" {
		mac, err := net.ParseMAC(l.MAC)
		if err != nil {
			return nil, err
		}
		attrs.HardwareAddr = mac
	}
	if l.Seal {
		return &netlink.Wireguard{LinkAttrs: attrs}, nil
	}
	if l.VNI == 0 {
		// Snooping needs a querier, which an overlay has not: groups would time out.
		return &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: new(false)}, nil
	}
	return &netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: int(l.VNI), SrcAddr: l.Local.AsSlice(), Port: int(l.Port), Learning: false,
	}, nil
}

// shape sets what can be set of a link that is there.
func (k *Kernel) shape(link netlink.Link, l kernel.Link) error {
	if err := k.nl.LinkSetMTU(link, l.MTU); err != nil {
		return fmt.Errorf("set the MTU: %w", err)
	}
	if l.MAC != "" {
		mac, err := net.ParseMAC(l.MAC)
		if err != nil {
			return err
		}
		if err := k.nl.LinkSetHardwareAddr(link, mac); err != nil {
			return fmt.Errorf("set the MAC address: %w", err)
		}
	}
	if l.Master == "" {
		return nil
	}
	master, err := k.nl.LinkByName(l.Master)
	if err != nil {
		return fmt.Errorf("find the bridge %s: %w", l.Master, err)
	}
	if err := k.nl.LinkSetMasterByIndex(link, master.Attrs().Index); err != nil {
		return fmt.Errorf("make it a port of %s: %w", l.Master, err)
	}
	// What is behind the tunnel is known from the tables: the bridge answers for it, and sends nothing there on a guess.
	return errors.Join(k.nl.LinkSetLearning(link, false), k.nl.LinkSetFlood(link, false), k.nl.LinkSetBrNeighSuppress(link, true))
}

// index is a link's, or 0 and no error if the link has gone and that is as good as done.
func (k *Kernel) index(v kernel.Verb, name string) (int, error) {
	link, err := k.nl.LinkByName(name)
	if err == nil {
		return link.Attrs().Index, nil
	}
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone && v == kernel.Remove {
		return 0, nil
	}
	return 0, err
}

func (k *Kernel) changeAddress(v kernel.Verb, a kernel.Address) error {
	index, err := k.index(v, a.Link)
	if err != nil || index == 0 {
		return err
	}
	addr := &netlink.Addr{IPNet: ipNet(a.Prefix)}
	if a.Prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // claimed in the store, and needed at once
	}
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index, Name: a.Link}}
	if v == kernel.Remove {
		return ignore(k.nl.AddrDel(link, addr), unix.EADDRNOTAVAIL)
	}
	return possible(a.Prefix.Addr(), k.nl.AddrReplace(link, addr))
}

// possible excuses what is about IPv6 on a kernel that was started without it: containers then have IPv4 alone.
func possible(a netip.Addr, err error) error {
	if !a.Is6() {
		return err
	}
	return ignore(err, unix.EOPNOTSUPP, unix.EAFNOSUPPORT)
}

func (k *Kernel) changeRoute(v kernel.Verb, r kernel.Route) error {
	index, err := k.index(v, r.Link)
	if err != nil || index == 0 {
		return err
	}
	route := &netlink.Route{LinkIndex: index, Dst: ipNet(r.Prefix), Src: r.Source.AsSlice(), Protocol: Protocol}
	switch {
	case r.Via.IsValid():
		route.Gw, route.Flags = r.Via.AsSlice(), int(netlink.FLAG_ONLINK)
	case r.Prefix.Addr().Is4():
		route.Scope = netlink.SCOPE_LINK
	}
	if r.Local {
		route.Type = unix.RTN_LOCAL
		if r.Prefix.Addr().Is4() {
			route.Scope = netlink.SCOPE_HOST
		}
	}
	route.Table = r.Table
	if v == kernel.Set { // it takes the place of another of its prefix
		return k.nl.RouteReplace(route)
	}
	if v == kernel.Remove {
		return ignore(k.nl.RouteDel(route), unix.ESRCH)
	}
	return possible(r.Prefix.Addr(), k.nl.RouteReplace(route))
}

func (k *Kernel) changeNeighbour(v kernel.Verb, n kernel.Neighbour) error {
	index, err := k.index(v, n.Link)
	if err != nil || index == 0 {
		return err
	}
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return err
	}
	family := netlink.FAMILY_V4
	if n.Addr.Is6() {
		family = netlink.FAMILY_V6
	}
	entry := &netlink.Neigh{
		LinkIndex: index, Family: family, State: netlink.NUD_PERMANENT, Type: unix.RTN_UNICAST,
		IP: n.Addr.AsSlice(), HardwareAddr: mac,
	}
	if v == kernel.Remove {
		return k.dropNeighbour(entry)
	}
	return possible(n.Addr, k.nl.NeighSet(entry))
}

// policyPriority is before those of a machine's own tables, which end at 32766.
const policyPriority = 8477

func (k *Kernel) changePolicy(v kernel.Verb, p kernel.Policy) error {
	rule := netlink.NewRule()
	rule.Family, rule.Priority, rule.Protocol = netlink.FAMILY_V4, policyPriority, Protocol
	rule.IifName, rule.Mark, rule.Mask, rule.Table = p.In, p.Mark, &p.Mask, p.Table
	family := netip.IPv4Unspecified()
	if p.IPv6 {
		rule.Family, family = netlink.FAMILY_V6, netip.IPv6Unspecified()
	}
	if v == kernel.Remove {
		return possible(family, ignore(k.nl.RuleDel(rule), unix.ENOENT))
	}
	return possible(family, ignore(k.nl.RuleAdd(rule), unix.EEXIST))
}

// changeForward writes two entries: the tunnel's own, which says behind which end the address is, and the bridge's, which
// says that it is behind the tunnel. The bridge's is NOARP, which is static; PERMANENT would mean this machine itself.
func (k *Kernel) changeForward(v kernel.Verb, f kernel.Forward) error {
	index, err := k.index(v, f.Link)
	if err != nil || index == 0 {
		return err
	}
	mac, err := net.ParseMAC(f.MAC)
	if err != nil {
		return err
	}
	bridge := &netlink.Neigh{
		LinkIndex: index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, State: netlink.NUD_NOARP, HardwareAddr: mac,
	}
	tunnel := &netlink.Neigh{
		LinkIndex: index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF,
		State: netlink.NUD_NOARP | netlink.NUD_PERMANENT, HardwareAddr: mac, IP: f.VTEP.AsSlice(),
	}
	if f.Link == kernel.MachineTunnel { // it is no port of a bridge
		if v == kernel.Remove {
			return ignore(k.nl.NeighDel(tunnel), unix.ENOENT)
		}
		return k.nl.NeighSet(tunnel)
	}
	if v == kernel.Remove {
		err := ignore(k.nl.NeighDel(bridge), unix.ENOENT)
		if f.VTEP.IsValid() {
			err = errors.Join(err, ignore(k.nl.NeighDel(tunnel), unix.ENOENT))
		}
		return err
	}
	return errors.Join(k.nl.NeighSet(tunnel), k.nl.NeighSet(bridge))
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// ignore takes an error that says that what should go is gone.
func ignore(err error, absent ...unix.Errno) error {
	if slices.ContainsFunc(absent, func(e unix.Errno) bool { return errors.Is(err, e) }) {
		return nil
	}
	return err
}
