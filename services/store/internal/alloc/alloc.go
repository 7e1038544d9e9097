// Package alloc chooses ports, network identifiers, subnets and virtual addresses.
//
// It owns the order of choice: the next free one after the last that was given (next-fit), so that what was given back is
// handed out again as late as possible. It is pure: what is taken is an argument, and what it chooses counts only once it
// is committed. Not safe for concurrent use of one Cursors.
package alloc

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/netip"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// FirstVNI and LastVNI bound VXLAN network identifiers: those below are the machines' own, and there are 24 bits.
const (
	FirstVNI = 4096
	LastVNI  = 1<<24 - 1
)

// SubnetBits is the size of a network's subnet.
const SubnetBits = 20

// Taken reports whether somebody holds a claim, or is about to.
type Taken func(claim string) bool

// Cursors remember what was given last. The zero value begins at the beginning; a new leader may begin with it.
type Cursors struct {
	ports  map[typesv1.Protocol]uint32
	vni    uint32
	subnet netip.Addr
	vips   map[string]netip.Addr // by network and subnet
}

// Clone is a copy that goes its own way.
func (c *Cursors) Clone() Cursors {
	out := *c
	out.ports, out.vips = maps.Clone(c.ports), maps.Clone(c.vips)
	return out
}

// Port is a free port of the range.
func (c *Cursors) Port(taken Taken, p typesv1.Protocol, first, last uint32) (uint32, bool) {
	if first == 0 || last < first {
		return 0, false
	}
	start := c.ports[p] + 1
	if start <= first || start > last {
		start = first
	}
	for i := range last - first + 1 {
		port := first + (start-first+i)%(last-first+1)
		if !taken(state.PortClaim(p, port)) {
			if c.ports == nil {
				c.ports = map[typesv1.Protocol]uint32{}
			}
			c.ports[p] = port
			return port, true
		}
	}
	return 0, false
}

// VNI is a free VXLAN network identifier.
func (c *Cursors) VNI(taken Taken) (uint32, bool) {
	start := max(c.vni+1, FirstVNI)
	for i := range uint32(LastVNI - FirstVNI + 1) {
		vni := FirstVNI + (start-FirstVNI+i)%(LastVNI-FirstVNI+1)
		if !taken(state.VNIClaim(vni)) {
			c.vni = vni
			return vni, true
		}
	}
	return 0, false
}

// Subnet is a /20 of the pool that overlaps nothing in used.
func (c *Cursors) Subnet(pool netip.Prefix, used []netip.Prefix) (netip.Prefix, bool) {
	pool = pool.Masked()
	if !pool.Addr().Is4() || pool.Bits() > SubnetBits {
		return netip.Prefix{}, false
	}
	count := uint32(1) << (SubnetBits - pool.Bits())
	base, start := number(pool.Addr()), uint32(0)
	if c.subnet.IsValid() && pool.Contains(c.subnet) {
		start = (number(c.subnet)-base)>>(32-SubnetBits) + 1
	}
	for i := range count {
		a := address(base + (start+i)%count<<(32-SubnetBits))
		p := netip.PrefixFrom(a, SubnetBits)
		if !overlaps(p, used) {
			c.subnet = a
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// searchLimit bounds the addresses of one subnet that are looked at for one service.
const searchLimit = 1 << 16

// VIP is a free address of a part of a network's subnet, or of all of it. The first and the last address of the subnet are
// never given, nor the one after the first, which networks keep for a gateway.
func (c *Cursors) VIP(taken Taken, networkID string, subnet, within netip.Prefix) (netip.Addr, bool) {
	subnet, within = subnet.Masked(), within.Masked()
	first := subnet.Addr().Next().Next()
	if within.Addr().Compare(first) > 0 {
		first = within.Addr()
	}
	pool := networkID + "/" + subnet.String()
	start := first
	if last := c.vips[pool]; last.IsValid() && within.Contains(last) {
		start = last.Next()
	}
	a := start
	for range searchLimit {
		if !within.Contains(a) || !a.IsValid() || (a.Is4() && !subnet.Contains(a.Next())) {
			if start == first {
				return netip.Addr{}, false
			}
			a, start = first, first // once around
			continue
		}
		if !taken(state.AddressClaim(networkID, a.String())) {
			if c.vips == nil {
				c.vips = map[string]netip.Addr{}
			}
			c.vips[pool] = a
			return a, true
		}
		a = a.Next()
	}
	return netip.Addr{}, false
}

// Subnet6 is a /64 for the n-th try of a network, in the range for private networks (RFC 4193), overlapping nothing in used.
// Seed makes it: equal seeds give equal subnets, and different ones hardly ever.
func Subnet6(seed string, used []netip.Prefix) (netip.Prefix, bool) {
	for try := range 16 {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", seed, try))
		var b [16]byte
		b[0] = 0xfd
		copy(b[1:8], sum[:7])
		if p := netip.PrefixFrom(netip.AddrFrom16(b), 64); !overlaps(p, used) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

func overlaps(p netip.Prefix, used []netip.Prefix) bool {
	for _, u := range used {
		if u.Overlaps(p) {
			return true
		}
	}
	return false
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
