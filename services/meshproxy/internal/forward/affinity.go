package forward

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// place is a client's among n tasks: the one that the kernel's rule leads it to (nft_hash: jhash with seed 1, scaled), so that
// machines which carry a port in different ways agree.
func place(client netip.Addr, n int) int {
	return int(uint64(jhash(client.AsSlice(), 1)) * uint64(n) >> 32)
}

// jhash is Bob Jenkins' lookup3 as in Linux (include/linux/jhash.h), of a length that is a multiple of 4.
func jhash(key []byte, seed uint32) uint32 {
	a := 0xdeadbeef + uint32(len(key)) + seed
	b, c := a, a
	for ; len(key) > 12; key = key[12:] {
		a += binary.LittleEndian.Uint32(key)
		b += binary.LittleEndian.Uint32(key[4:])
		c += binary.LittleEndian.Uint32(key[8:])
		a, b, c = mix(a, b, c)
	}
	if len(key) == 0 {
		return c
	}
	for i, word := range []*uint32{&a, &b, &c} {
		if len(key) >= 4*i+4 {
			*word += binary.LittleEndian.Uint32(key[4*i:])
		}
	}
	return final(a, b, c)
}

func mix(a, b, c uint32) (uint32, uint32, uint32) {
	for _, r := range [...]int{4, 6, 8, 16, 19, 4} {
		a -= c
		a ^= bits.RotateLeft32(c, r)
		c += b
		a, b, c = b, c, a // the next step does the same, one on
	}
	return a, b, c
}

func final(a, b, c uint32) uint32 {
	for _, r := range [...]int{14, 11, 25, 16, 4, 14, 24} {
		c ^= b
		c -= bits.RotateLeft32(b, r)
		a, b, c = b, c, a
	}
	return b
}
