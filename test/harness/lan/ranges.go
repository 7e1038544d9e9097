package lan

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
)

// Range is a lab's address range: a /24 of the benchmark network 198.18.0.0/15 (RFC 2544), which no real network
// uses, and a /64 of a unique local IPv6 network (RFC 4193). Number 1 is the outer machine.
type Range struct {
	IPv4 netip.Prefix `json:"ipv4"`
	IPv6 netip.Prefix `json:"ipv6"`
}

const ranges = 512 // how many /24 the benchmark network holds

// Pick chooses the range that the lab's id leads to, or the next one that the machine has no route to. Every other
// lab that is up has such a route, so two labs never share a range. The caller holds a lock over Pick and Create.
func Pick(id string) (Range, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return Range{}, fmt.Errorf("read the machine's routes: %w", err)
	}
	var taken []netip.Prefix
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		if prefix, err := netip.ParsePrefix(route.Dst.String()); err == nil && prefix.Bits() > 0 {
			taken = append(taken, prefix)
		}
	}
	hash := fnv.New64a()
	hash.Write([]byte(id))
	first := hash.Sum64()
	for i := range uint64(ranges) {
		candidate := nth((first + i) % ranges)
		if !overlaps(candidate, taken) {
			return candidate, nil
		}
	}
	return Range{}, fmt.Errorf("all %d lab address ranges in 198.18.0.0/15 are in use: take an old lab down first", ranges)
}

func nth(n uint64) Range {
	return Range{
		IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(18 + n/256), byte(n % 256), 0}), 24),
		IPv6: netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x5a, 0x4c, 0x61, 0x62, 0, byte(n / 256), byte(n % 256)}), 64),
	}
}

func overlaps(r Range, taken []netip.Prefix) bool {
	for _, prefix := range taken {
		if prefix.Overlaps(r.IPv4) || prefix.Overlaps(r.IPv6) {
			return true
		}
	}
	return false
}

// Addresses returns the prefixed addresses of member n: the outer machine is 1. Without IPv6 on this machine it is
// IPv4 alone.
func (r Range) Addresses(n int) []netip.Prefix {
	ipv4 := r.IPv4.Addr().As4()
	ipv4[3] = byte(n)
	addresses := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(ipv4), r.IPv4.Bits())}
	if hasIPv6() {
		ipv6 := r.IPv6.Addr().As16()
		ipv6[15] = byte(n)
		addresses = append(addresses, netip.PrefixFrom(netip.AddrFrom16(ipv6), r.IPv6.Bits()))
	}
	return addresses
}

func hasIPv6() bool {
	text, err := os.ReadFile("/proc/sys/net/ipv6/conf/default/disable_ipv6")
	return err == nil && strings.TrimSpace(string(text)) == "0"
}
