package ends

import "net/netip"

// NameServer4 and NameServer6 are where every machine answers its containers' questions for names: the same everywhere, so
// that a container's resolv.conf holds whatever becomes of its machine's meshproxy. The first is a link-local address (RFC
// 3927); the second is not, since a container's own link-local address would not tell which container asks.
func NameServer4() netip.Addr { return netip.AddrFrom4([4]byte{169, 254, 53, 53}) }

// NameServer6 is fd73:686f:616c::53, in a range of our own: "shoal" in ASCII (RFC 4193).
func NameServer6() netip.Addr {
	return netip.AddrFrom16([16]byte{0xfd, 's', 'h', 'o', 'a', 'l', 15: 0x53})
}
