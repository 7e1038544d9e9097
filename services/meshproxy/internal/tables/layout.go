package tables

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// field is one part of an element's key or value: how it is written in a text, and in the kernel.
type field struct {
	kind   nftables.SetDatatype
	encode func(string) ([]byte, bool)
	decode func([]byte) string
}

// layout is the shape of a set or map.
type layout struct {
	key, value []field // no value: a set
	verdict    bool    // the value is a chain
	counter    bool    // each element counts what is found by it
}

func fields() (protocol, port, four, six, mac, mark, zone, index field) {
	protocol = field{nftables.TypeInetProto, func(s string) ([]byte, bool) {
		p := map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}[s]
		return []byte{p}, p != 0
	}, func(b []byte) string {
		return map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}[b[0]]
	}}
	port = field{nftables.TypeInetService, func(s string) ([]byte, bool) {
		n, err := strconv.ParseUint(s, 10, 16)
		return binaryutil.BigEndian.PutUint16(uint16(n)), err == nil
	}, func(b []byte) string { return strconv.Itoa(int(binaryutil.BigEndian.Uint16(b))) }}
	address := func(s string) ([]byte, bool) {
		a, err := netip.ParseAddr(s)
		return a.AsSlice(), err == nil
	}
	text := func(b []byte) string {
		a, _ := netip.AddrFromSlice(b)
		return a.String()
	}
	four, six = field{nftables.TypeIPAddr, address, text}, field{nftables.TypeIP6Addr, address, text}
	mac = field{nftables.TypeEtherAddr, func(s string) ([]byte, bool) {
		b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
		return b, err == nil
	}, func(b []byte) string {
		return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
	}}
	number := func(s string) (uint32, bool) {
		n, err := strconv.ParseUint(s, 0, 32)
		return uint32(n), err == nil
	}
	mark = field{nftables.TypeMark, func(s string) ([]byte, bool) {
		n, ok := number(s)
		return binaryutil.NativeEndian.PutUint32(n), ok
	}, func(b []byte) string { return fmt.Sprintf("%#08x", binaryutil.NativeEndian.Uint32(b)) }}
	// The kernel reads a zone as 16 bits from the beginning of the register.
	zone = field{nftables.TypeMark, func(s string) ([]byte, bool) {
		n, ok := number(s)
		return append(binaryutil.NativeEndian.PutUint16(uint16(n)), 0, 0), ok
	}, func(b []byte) string { return strconv.Itoa(int(binaryutil.NativeEndian.Uint16(b[:2]))) }}
	index = field{nftables.TypeMark, mark.encode, func(b []byte) string {
		return strconv.FormatUint(uint64(binaryutil.NativeEndian.Uint32(b)), 10)
	}}
	return protocol, port, four, six, mac, mark, zone, index
}

// layouts are the sets and maps of the main table by name; ways are the tunnel's.
func layouts() (all map[string]layout, ways layout) {
	protocol, port, four, six, mac, mark, zone, index := fields()
	all = map[string]layout{
		mesh.SetSenders: {key: []field{mac}, value: []field{mark}},
		mesh.SetZones:   {key: []field{mac}, value: []field{zone}},
		mesh.SetSealed:  {key: []field{vni()}},
	}
	for is4, address := range map[bool]field{true: four, false: six} {
		all[mesh.Family(mesh.SetPorts, is4)] = layout{key: []field{protocol, port}, value: []field{mark}}
		all[mesh.Family(mesh.SetBound, is4)] = layout{key: []field{address, protocol, port}, value: []field{mark}}
		all[mesh.Family(mesh.SetTurns, is4)] = layout{key: []field{mark}, verdict: true}
		all[mesh.Family(mesh.SetBackends, is4)] = layout{key: []field{protocol, port, index}, value: []field{address, port}}
		all[mesh.Family(mesh.SetCounted, is4)] = layout{key: []field{protocol, port}, counter: true}
		all[mesh.Family(mesh.SetCountedAt, is4)] = layout{key: []field{address, protocol, port}, counter: true}
		all[mesh.Family(mesh.SetOwners, is4)] = layout{key: []field{mac, address}}
		all[mesh.Family(mesh.SetEnclosed, is4)] = layout{key: []field{address}}
		all[mesh.Family(mesh.SetHairpins, is4)] = layout{key: []field{address, address}}
		all[mesh.Family(mesh.SetReturns, is4)] = layout{key: []field{address, address}}
	}
	return all, layout{key: []field{mark}, value: []field{mac}}
}

// set is the kernel's object of a layout.
func (l layout) set(t *nftables.Table, name string) *nftables.Set {
	s := &nftables.Set{Table: t, Name: name, KeyType: concatenated(l.key), Concatenation: len(l.key) > 1, KeyByteOrder: binaryutil.BigEndian, Counter: l.counter}
	if s.KeyType.Name == nftables.TypeMark.Name {
		s.KeyByteOrder = binaryutil.NativeEndian
	}
	switch {
	case l.verdict:
		s.IsMap, s.DataType = true, nftables.TypeVerdict
	case len(l.value) > 0:
		s.IsMap, s.DataType = true, concatenated(l.value)
	}
	return s
}

func concatenated(all []field) nftables.SetDatatype {
	kinds := make([]nftables.SetDatatype, 0, len(all))
	for _, f := range all {
		kinds = append(kinds, f.kind)
	}
	if len(kinds) == 1 {
		return kinds[0]
	}
	return nftables.MustConcatSetType(kinds...)
}

// encodeAll writes fields one after the other, each on its own 32-bit registers, as concatenations are.
func encodeAll(all []field, text string) ([]byte, error) {
	words := strings.Fields(text)
	if len(words) != len(all) {
		return nil, fmt.Errorf("%q has not %d fields", text, len(all))
	}
	var out []byte
	for i, f := range all {
		b, ok := f.encode(words[i])
		if !ok || len(b) != int(f.kind.Bytes) {
			return nil, fmt.Errorf("%q in %q is not what is kept there", words[i], text)
		}
		out = append(out, b...)
		if len(all) > 1 {
			out = append(out, make([]byte, -len(b)&3)...)
		}
	}
	return out, nil
}

func decodeAll(all []field, data []byte) string {
	words := make([]string, 0, len(all))
	for _, f := range all {
		n := int(f.kind.Bytes)
		if len(data) < n {
			return ""
		}
		words = append(words, f.decode(data[:n]))
		data = data[min(len(data), (n+3)&^3):]
	}
	return strings.Join(words, " ")
}

// vni is a network identifier as it stands in a VXLAN header (RFC 7348, 5): 24 bits, and 8 that are no part of it.
func vni() field {
	return field{nftables.TypeInteger, func(s string) ([]byte, bool) {
		n, err := strconv.ParseUint(s, 10, 24)
		return binaryutil.BigEndian.PutUint32(uint32(n) << 8), err == nil
	}, func(b []byte) string { return strconv.FormatUint(uint64(binaryutil.BigEndian.Uint32(b)>>8), 10) }}
}
