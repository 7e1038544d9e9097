// Package ends has the addresses of the tunnels' ends, which follow from what the cluster knows of a machine, and those of the name
// servers, which are the same everywhere, so that nobody need tell them.
//
// It is pure, and keeps nothing. Two machines must never have the same.
package ends

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
)

// MAC is the address of a machine's end of the mesh: 02:43 and its IPv4 address, or a part of a digest of its IPv6 one.
func MAC(a netip.Addr) string {
	b := a.As16()
	tail := b[12:]
	if a.Is6() {
		sum := sha256.Sum256(b[:])
		tail = sum[:4]
	}
	return fmt.Sprintf("02:43:%02x:%02x:%02x:%02x", tail[0], tail[1], tail[2], tail[3])
}

// NextHop stands for a peer in the routes of a family: an address that the peer need not have, since its neighbour entry
// is permanent.
func NextHop(vtep netip.Addr, is4 bool) netip.Addr {
	mac := MAC(vtep)
	var b [6]byte
	_, _ = fmt.Sscanf(mac, "%02x:%02x:%02x:%02x:%02x:%02x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) // as just written
	if !is4 {
		return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: 0x02, 0x43, 12: b[2], b[3], b[4], b[5]})
	}
	if vtep.Is4() {
		return vtep
	}
	return netip.AddrFrom4([4]byte{0xf0 | b[2], b[3], b[4], b[5]}) // of a range that nobody uses on the wire
}

// Slots of a machine's addresses within WireGuard: one for each of the keys that may be in use at once, and one that stays.
const (
	keySlots  = 8
	stay      = 15
	looseStay = 14
)

// Sealed are the addresses of a machine within WireGuard: the one that stays, and that of a key of this generation. They are of a range
// that nobody uses on the wire (240.0.0.0/4, RFC 1112): 24 bits of the machine's first IPv4 block, a /24 that is its own alone, and a
// slot of 4. A machine without a block, which only takes traffic, has a digest of its id in their place, in slots that the others leave
// free.
func Sealed(node string, blocks []string, generation uint64) (fixed, ofKey netip.Addr) {
	for _, text := range blocks {
		if block, err := netip.ParsePrefix(text); err == nil && block.Addr().Is4() {
			b := block.Addr().As4()
			bits := [3]byte(b[:3])
			return sealed(bits, stay), sealed(bits, byte(generation%keySlots))
		}
	}
	sum := sha256.Sum256([]byte(node))
	bits := [3]byte(sum[:3])
	return sealed(bits, looseStay), sealed(bits, byte(keySlots+generation%(looseStay-keySlots)))
}

func sealed(bits [3]byte, slot byte) netip.Addr {
	return netip.AddrFrom4([4]byte{0xf0 | bits[0]>>4, bits[0]<<4 | bits[1]>>4, bits[1]<<4 | bits[2]>>4, bits[2]<<4 | slot})
}

// Networks are the ranges of the machine network, which the tunnel is for: IPv4's, and IPv6's as the machines' blocks have it. What is no
// range is left out.
func Networks(four string, blocks []string) (out []netip.Prefix) {
	if n, err := netip.ParsePrefix(four); err == nil {
		out = append(out, n.Masked())
	}
	for _, text := range blocks {
		block, err := netip.ParsePrefix(text)
		if err != nil || !block.Addr().Is6() {
			continue
		}
		if cluster, err := block.Addr().Prefix(48); err == nil && !slices.Contains(out, cluster) { // a cluster's range is a /48
			out = append(out, cluster)
		}
	}
	return out
}
