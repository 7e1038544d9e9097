package tables

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/sysctl"
)

// Read lists what is ours. The agent's host ends are its own, and not told.
func (k *Kernel) Read(ctx context.Context, settings []string) (kernel.Kernel, error) {
	out := kernel.NewKernel()
	names, err := k.readLinks(&out)
	if err != nil {
		return out, fmt.Errorf("read links: %w", err)
	}
	for part, read := range map[string]func(*kernel.Kernel, map[int]string) error{
		"addresses": k.readAddresses, "routes": k.readRoutes, "neighbours": k.readNeighbours, "forwarding entries": k.readForwards,
		"policies": k.readPolicies,
	} {
		if err := errors.Join(ctx.Err(), read(&out, names)); err != nil {
			return out, fmt.Errorf("read %s: %w", part, err)
		}
	}
	for _, path := range settings {
		if value, ok := sysctl.Read(path); ok {
			out.Settings[path] = value
		}
	}
	if err := k.readFilter(&out); err != nil {
		return out, fmt.Errorf("read the packet filter: %w", err)
	}
	out.Entries["flows"] = kernel.NewPart(k.flows.Slots())
	return out, nil
}

// readLinks returns the names of our links by index, too.
func (k *Kernel) readLinks(out *kernel.Kernel) (map[int]string, error) {
	links, err := whole(func() ([]netlink.Link, error) { return k.nl.LinkList() })
	if err != nil {
		return nil, err
	}
	all, names := map[int]string{}, map[int]string{}
	for _, l := range links {
		all[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		a := l.Attrs()
		if !kernel.Managed(a.Name) {
			continue
		}
		names[a.Index] = a.Name
		link := kernel.Link{Name: a.Name, Up: a.Flags&net.FlagUp != 0, MTU: a.MTU, MAC: a.HardwareAddr.String()}
		if v, ok := l.(*netlink.Vxlan); ok {
			link.VNI, link.Port = uint32(v.VxlanId), uint16(v.Port)
			local, _ := netip.AddrFromSlice(v.SrcAddr) // invalid if none, and then not what is wanted
			link.Local = local.Unmap()
		}
		switch l.(type) {
		case *netlink.Wireguard, *netlink.Tuntap:
			link.Seal = true
		}
		if a.MasterIndex != 0 && k.quiet(l) {
			link.Master = all[a.MasterIndex]
		}
		out.Links[a.Name] = link
	}
	return names, nil
}

// quiet says that a port's flags are as shape sets them. A port that has others is told as none, and is set again.
func (k *Kernel) quiet(l netlink.Link) bool {
	p, err := k.nl.LinkGetProtinfo(l)
	return err == nil && !p.Learning && !p.Flood && p.NeighSuppress
}

func (k *Kernel) readAddresses(out *kernel.Kernel, names map[int]string) error {
	addrs, err := whole(func() ([]netlink.Addr, error) { return k.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	for _, a := range addrs {
		p, ok := prefix(a.IPNet)
		if ok && names[a.LinkIndex] != "" && (p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast()) {
			out.Addresses[kernel.Address{Link: names[a.LinkIndex], Prefix: p}] = struct{}{}
		}
	}
	return nil
}

func (k *Kernel) readRoutes(out *kernel.Kernel, names map[int]string) error {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := k.ourRoutes(family)
		if err != nil {
			return err
		}
		for _, r := range routes {
			p, ok := prefix(r.Dst)
			if !ok {
				continue
			}
			src, _ := netip.AddrFromSlice(r.Src) // invalid if none, and then not what is wanted
			via, _ := netip.AddrFromSlice(r.Gw)  // likewise
			route := kernel.Route{Link: names[r.LinkIndex], Prefix: p, Source: src.Unmap(), Via: via.Unmap(), Local: r.Type == unix.RTN_LOCAL}
			if r.Table != unix.RT_TABLE_MAIN {
				route.Table = r.Table
			}
			out.Routes[route] = struct{}{}
		}
	}
	return nil
}

// ourRoutes are those of all tables that carry our number.
func (k *Kernel) ourRoutes(family int) ([]netlink.Route, error) {
	filter := &netlink.Route{Protocol: Protocol, Table: unix.RT_TABLE_UNSPEC}
	return whole(func() ([]netlink.Route, error) {
		return k.nl.RouteListFiltered(family, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
}

func (k *Kernel) readPolicies(out *kernel.Kernel, _ map[int]string) error {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := k.ourPolicies(family)
		if err != nil {
			return err
		}
		for _, r := range rules {
			p := kernel.Policy{IPv6: family == netlink.FAMILY_V6, In: r.IifName, Mark: r.Mark, Table: r.Table}
			if r.Mask != nil {
				p.Mask = *r.Mask
			}
			out.Policies[p] = struct{}{}
		}
	}
	return nil
}

func (k *Kernel) ourPolicies(family int) ([]netlink.Rule, error) {
	all, err := whole(func() ([]netlink.Rule, error) { return k.nl.RuleList(family) })
	return slices.DeleteFunc(all, func(r netlink.Rule) bool { return r.Protocol != Protocol }), err
}

// readNeighbours leaves out those that the kernel learns by itself.
func (k *Kernel) readNeighbours(out *kernel.Kernel, names map[int]string) error {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		entries, err := whole(func() ([]netlink.Neigh, error) { return k.nl.NeighList(0, family) })
		if err != nil {
			return err
		}
		for _, n := range entries {
			name := names[n.LinkIndex]
			addr, ok := netip.AddrFromSlice(n.IP)
			if ok && name != "" && n.State&netlink.NUD_PERMANENT != 0 {
				out.Neighbours[kernel.Neighbour{Link: name, Addr: addr.Unmap(), MAC: n.HardwareAddr.String()}] = struct{}{}
			}
		}
	}
	return nil
}

// readForwards pairs the two entries of each address.
func (k *Kernel) readForwards(out *kernel.Kernel, names map[int]string) error {
	entries, err := whole(func() ([]netlink.Neigh, error) { return k.nl.NeighList(0, unix.AF_BRIDGE) })
	if err != nil {
		return err
	}
	type place struct{ link, mac string }
	bridge, tunnel := map[place]bool{}, map[place][]netip.Addr{}
	for _, e := range entries {
		name := names[e.LinkIndex]
		if out.Links[name].VNI == 0 || len(e.HardwareAddr) != 6 || e.HardwareAddr[0]&1 != 0 {
			continue
		}
		at := place{name, e.HardwareAddr.String()}
		if e.Flags&netlink.NTF_SELF != 0 {
			vtep, _ := netip.AddrFromSlice(e.IP)
			tunnel[at] = append(tunnel[at], vtep.Unmap())
		} else if e.State&netlink.NUD_PERMANENT == 0 { // else it is the port's own address
			bridge[at] = true
		}
	}
	for at, vteps := range tunnel {
		for _, vtep := range vteps {
			half := len(vteps) > 1 || (!bridge[at] && at.link != kernel.MachineTunnel)
			out.Forwards[kernel.Forward{Link: at.link, MAC: at.mac, VTEP: vtep, Half: half}] = struct{}{}
		}
		delete(bridge, at)
	}
	for at := range bridge {
		out.Forwards[kernel.Forward{Link: at.link, MAC: at.mac, Half: true}] = struct{}{}
	}
	return nil
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits), ok
}

// tries bounds how often a list is asked for: the kernel says when it has changed while it was told, which happens all the
// time while containers come and go.
const tries = 20

// whole asks for a list until it is one of a single moment.
func whole[T any](list func() ([]T, error)) (out []T, err error) {
	for range tries {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}
