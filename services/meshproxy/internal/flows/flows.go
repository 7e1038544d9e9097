// Package flows forgets tracked connections that were led to places which are no more.
//
// It owns the list of places where connections may be (kernel.SetFlows, which is no set of the kernel's), and touches nothing of
// the kernel but its table of connections. It decides nothing: which places there are is said to it. One goroutine at a time may
// use a Book.
package flows

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

// Book is one machine's.
type Book struct {
	nl    *netlink.Handle
	slots map[kernel.Slot]string
	gone  places // those that the kernel may know connections to
	// swept says that connections of before our start have been looked at.
	swept bool
}

// New has no places yet.
func New(nl *netlink.Handle) *Book {
	return &Book{nl: nl, slots: map[kernel.Slot]string{}, gone: places{}}
}

// Slots are the places as elements.
func (b *Book) Slots() map[kernel.Slot]string { return maps.Clone(b.slots) }

// Note keeps where connections may be, and what is to be forgotten. A place that has come back is not.
func (b *Book) Note(changes []kernel.Change) error {
	for _, c := range changes {
		if c.Entry == nil || c.Entry.Set != kernel.SetFlows {
			continue
		}
		p, err := placeOf(c.Entry.Key)
		if err != nil {
			return err
		}
		if c.Verb == kernel.Add {
			b.slots[c.Entry.Slot] = ""
			delete(b.gone, p)
			continue
		}
		delete(b.slots, c.Entry.Slot)
		b.gone[p] = true
	}
	return nil
}

// Forget has the kernel forget the connections to places that are no more; the first time, those to any other place within the
// networks, whose tasks have gone while nobody of us was here. It comes after the transaction of the packet filter: what is
// asked again then goes elsewhere. What failed is tried again the next time.
func (b *Book) Forget(networks []netip.Prefix) error {
	var faults []error
	for _, family := range b.gone.families() {
		_, err := b.nl.ConntrackDeleteFilters(netlink.ConntrackTable, family, b.gone)
		faults = append(faults, err)
	}
	if !b.swept && len(networks) > 0 {
		err := b.sweep(networks)
		b.swept = err == nil
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("forget connections to tasks that have gone: %w", err)
	}
	clear(b.gone)
	return nil
}

func (b *Book) sweep(networks []netip.Prefix) error {
	s := stray{networks: networks, known: places{}}
	for slot := range b.slots {
		p, err := placeOf(slot.Key)
		if err != nil {
			return err
		}
		s.known[p] = true
	}
	var faults []error
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		_, err := b.nl.ConntrackDeleteFilters(netlink.ConntrackTable, family, s)
		faults = append(faults, err)
	}
	return errors.Join(faults...)
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
		protocol := map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}[words[0]]
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

// stray are connections that were led into the networks, and to no place that is known.
type stray struct {
	networks []netip.Prefix
	known    places
}

// MatchConntrackFlow is asked for each connection that the kernel knows.
func (s stray) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Reverse.SrcIP.Equal(flow.Forward.DstIP) && flow.Reverse.SrcPort == flow.Forward.DstPort {
		return false // it was dialled there
	}
	a, _ := netip.AddrFromSlice(normal(flow.Reverse.SrcIP))
	within := slices.ContainsFunc(s.networks, func(n netip.Prefix) bool { return n.Contains(a) })
	return within && !s.known.MatchConntrackFlow(flow)
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
