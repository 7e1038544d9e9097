package tables

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// note keeps where connections may be, and what is to be forgotten. A place that has come back is not.
func (k *Kernel) note(changes []mesh.Change) error {
	for _, c := range changes {
		if entrySet(c) != mesh.SetFlows {
			continue
		}
		p, err := placeOf(c.Entry.Key)
		if err != nil {
			return err
		}
		if c.Verb == mesh.Add {
			k.flows[c.Entry.Slot] = ""
			delete(k.gone, p)
			continue
		}
		delete(k.flows, c.Entry.Slot)
		k.gone[p] = true
	}
	return nil
}

// Forget has the kernel forget the connections to places that are no more. It comes after the transaction of the packet
// filter: what is asked again then goes elsewhere. What failed is tried again the next time.
func (k *Kernel) Forget() error {
	var faults []error
	for _, family := range k.gone.families() {
		_, err := k.nl.ConntrackDeleteFilters(netlink.ConntrackTable, family, k.gone)
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("forget connections to tasks that have gone: %w", err)
	}
	clear(k.gone)
	return nil
}

// place is where a connection ends: who answers it.
type place struct {
	protocol uint8
	at       netip.AddrPort
}

func placeOf(key string) (place, error) {
	words := strings.Fields(key)
	if len(words) == 3 {
		a, errA := netip.ParseAddr(words[1])
		port, errP := strconv.ParseUint(words[2], 10, 16)
		protocol := map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[words[0]]
		if errA == nil && errP == nil && protocol != 0 {
			return place{protocol, netip.AddrPortFrom(a, uint16(port))}, nil
		}
	}
	return place{}, fmt.Errorf("%q is no place of connections", key)
}

// places are what to forget: connections whose replies come from there, however they were addressed.
type places map[place]bool

// MatchConntrackFlow is asked for each connection that the kernel knows.
func (p places) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	a, ok := netip.AddrFromSlice(normal(flow.Reverse.SrcIP))
	return ok && p[place{flow.Reverse.Protocol, netip.AddrPortFrom(a, flow.Reverse.SrcPort)}]
}

func normal(ip net.IP) net.IP {
	if four := ip.To4(); four != nil {
		return four
	}
	return ip
}

func (p places) families() []netlink.InetFamily {
	var four, six bool
	for at := range p {
		four, six = four || at.at.Addr().Is4(), six || at.at.Addr().Is6()
	}
	var out []netlink.InetFamily
	if four {
		out = append(out, unix.AF_INET)
	}
	if six {
		out = append(out, unix.AF_INET6)
	}
	return out
}
