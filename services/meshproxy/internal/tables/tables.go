// Package tables reads and changes the machine's own network: links, addresses, routes, neighbours, forwarding entries,
// sysctls and the packet filter.
//
// It is the only place in the meshproxy that touches the kernel. It decides nothing: what should be there is Model.Desired of package mesh,
// and what to do about it is kernel.Diff. It never touches what is not ours: links by their names (kernel.Ours), routes by
// their protocol number, rules and sets in the nftables table "shoal" alone, where the chain SHOAL-USER is made and then
// left to the administrator. Nothing is removed when the process stops.
//
// One goroutine at a time may call Read, Apply and Transact, another may be in Watch.
package tables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/flows"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/sysctl"
)

// Protocol is the number that our routes carry (rtm_protocol, rtnetlink(7)): one that no routing daemon is known to use.
const Protocol = 83

// Tables is a machine's network. The contract of Read and Apply: after Apply(Diff(want, have)) without an error, reading
// again shows no difference.
type Tables interface {
	// Underlay is the MTU of the link that has an address.
	Underlay(ctx context.Context, address netip.Addr) (mtu int, err error)
	// Addresses are the machine's, but for those of links that are ours.
	Addresses(ctx context.Context) ([]netip.Addr, error)
	// Read is what there is of ours, and the settings of these paths.
	Read(ctx context.Context, settings []string) (kernel.Kernel, error)
	// Apply takes the steps in order. A step that fails stops no other; all errors come together.
	Apply(ctx context.Context, changes []kernel.Change) error
	// Forget ends what connections to places that are gone have left, since the last time; the first time, what was led to any
	// other place within these networks, which somebody before us may have done. New ones go elsewhere already, so nobody needs to
	// wait for it: the kernel looks through all connections that it knows.
	Forget(networks []netip.Prefix) error
	// Watch calls notify after somebody, we too, changed links or rules; until ctx ends.
	Watch(ctx context.Context, notify func()) error
	// Holder says in words which process has a port, or "" if that cannot be seen.
	Holder(l mesh.Listener) string
}

// Kernel is the real one, in the network namespace of the thread that made it.
type Kernel struct {
	nl *netlink.Handle
	// filter is the socket for changes of the packet filter; nil: none is open.
	filter *nftables.Conn
	// flows are the places where connections may be.
	flows *flows.Book
	// own counts our transactions of which the watch has not heard yet.
	own atomic.Int64
	// spawn makes a WireGuard device's link where the kernel has no WireGuard; nil: nothing does.
	spawn func(name string, mtu int) error
	// ownNeighbours counts the neighbours that we have removed, likewise.
	ownNeighbours atomic.Int64
}

// New opens it. Errors name what the kernel lacks.
func New() (*Kernel, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink to the kernel: %w; the meshproxy needs CAP_NET_ADMIN", err)
	}
	return &Kernel{nl: h, flows: flows.New(h)}, nil
}

// SealBy has WireGuard devices made by a process in user space. Call it before the first Apply.
func (k *Kernel) SealBy(spawn func(name string, mtu int) error) { k.spawn = spawn }

// Forget is the book's of flows.
func (k *Kernel) Forget(networks []netip.Prefix) error { return k.flows.Forget(networks) }

// Close gives the socket back. What is in the kernel stays.
func (k *Kernel) Close() {
	k.drop()
	k.nl.Close()
}

// Underlay finds the link by the address.
func (k *Kernel) Underlay(_ context.Context, address netip.Addr) (int, error) {
	family := netlink.FAMILY_V4
	if address.Is6() {
		family = netlink.FAMILY_V6
	}
	addrs, err := whole(func() ([]netlink.Addr, error) { return k.nl.AddrList(nil, family) })
	if err != nil {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if got, ok := netip.AddrFromSlice(a.IP); !ok || got.Unmap() != address {
			continue
		}
		link, err := k.nl.LinkByIndex(a.LinkIndex)
		if err != nil {
			return 0, fmt.Errorf("look at the link of %s: %w", address, err)
		}
		return link.Attrs().MTU, nil
	}
	return 0, fmt.Errorf("no link of this machine has the address %s; set `advertise` to one that it has", address)
}

// Addresses lists them in order.
func (k *Kernel) Addresses(context.Context) ([]netip.Addr, error) {
	links, err := whole(func() ([]netlink.Link, error) { return k.nl.LinkList() })
	if err != nil {
		return nil, err
	}
	ours := map[int]bool{}
	for _, l := range links {
		ours[l.Attrs().Index] = kernel.Ours(l.Attrs().Name)
	}
	addrs, err := whole(func() ([]netlink.Addr, error) { return k.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range addrs {
		if p, ok := prefix(a.IPNet); ok && !ours[a.LinkIndex] && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p.Addr())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// Apply does the packet filter's part in one transaction: guarded before and guarded after, with no moment between. If that fails no
// tunnel is made that must be guarded.
func (k *Kernel) Apply(ctx context.Context, changes []kernel.Change) error {
	filter := make([]kernel.Change, 0, len(changes)) // nearly all, and many at the start
	var ways []kernel.Change
	var faults []error
	for _, c := range changes {
		switch {
		case isWay(c):
			ways = append(ways, c)
		case isFilter(c):
			filter = append(filter, c)
		}
	}
	guarded := true
	if len(filter) > 0 {
		if err := k.applyFilter(filter); err != nil {
			faults, guarded = append(faults, fmt.Errorf("packet filter: %w", err)), false
		}
	}
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(faults, err)...)
		}
		if isFilter(c) || isWay(c) || !guarded && c.Verb != kernel.Remove && sealed(c.Link) {
			continue
		}
		if err := k.step(c); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", c, err))
		}
	}
	if len(ways) > 0 { // it needs the tunnel
		if err := newTunnelSide().apply(k, ways); err != nil {
			faults = append(faults, fmt.Errorf("way back by the tunnel: %w", err))
		}
	}
	return errors.Join(append(faults, k.flows.Note(changes))...)
}

// isFilter says that a change belongs into the one transaction of the packet filter.
func isFilter(c kernel.Change) bool {
	return c.Rules != nil || c.Peer.IsValid() || (c.Entry != nil && !isWay(c) && c.Entry.Set != kernel.SetFlows)
}

func (k *Kernel) step(c kernel.Change) error {
	switch {
	case c.Link != nil:
		return k.changeLink(c.Verb, *c.Link)
	case c.Address != nil:
		return k.changeAddress(c.Verb, *c.Address)
	case c.Route != nil:
		return k.changeRoute(c.Verb, *c.Route)
	case c.Neighbour != nil:
		return k.changeNeighbour(c.Verb, *c.Neighbour)
	case c.Forward != nil:
		return k.changeForward(c.Verb, *c.Forward)
	case c.Policy != nil:
		return k.changePolicy(c.Verb, *c.Policy)
	case c.Setting != nil:
		return sysctl.Write(c.Setting.Path, c.Setting.Value)
	}
	return nil
}
