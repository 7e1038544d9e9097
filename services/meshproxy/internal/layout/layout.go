// Package layout says how what the packet filter's sets and maps hold is written: as text, by which it is compared and logged,
// and as the kernel has it.
//
// It owns the shape of each set. It never touches the kernel. It is pure, and safe for concurrent use.
package layout

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

// field is one part of an element's key or value: how it is written in a text, and in the kernel.
type field struct {
	kind   nftables.SetDatatype
	encode func(string) ([]byte, bool)
	decode func([]byte) string
}

// Layout is the shape of a set or map.
type Layout struct {
	key, value []field // no value: a set
	// Verdict says that the value is a chain.
	Verdict bool
	// Counter says that each element counts what is found by it.
	Counter bool
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

// All are the sets and maps of the main table by name; ways are the tunnel's.
func All() (all map[string]Layout, ways Layout) {
	protocol, port, four, six, mac, mark, zone, index := fields()
	all = map[string]Layout{
		kernel.SetSenders: {key: []field{mac}, value: []field{mark}},
		kernel.SetZones:   {key: []field{mac}, value: []field{zone}},
		kernel.SetSealed:  {key: []field{vni()}},
	}
	for is4, address := range map[bool]field{true: four, false: six} {
		all[kernel.Family(kernel.SetPorts, is4)] = Layout{key: []field{protocol, port}, value: []field{mark}}
		all[kernel.Family(kernel.SetBound, is4)] = Layout{key: []field{address, protocol, port}, value: []field{mark}}
		all[kernel.Family(kernel.SetTurns, is4)] = Layout{key: []field{mark}, Verdict: true}
		all[kernel.Family(kernel.SetBackends, is4)] = Layout{key: []field{protocol, port, index}, value: []field{address, port}}
		all[kernel.Family(kernel.SetCounted, is4)] = Layout{key: []field{protocol, port}, Counter: true}
		all[kernel.Family(kernel.SetCountedAt, is4)] = Layout{key: []field{address, protocol, port}, Counter: true}
		all[kernel.Family(kernel.SetListened, is4)] = Layout{key: []field{protocol, port}}
		all[kernel.Family(kernel.SetListenedAt, is4)] = Layout{key: []field{address, protocol, port}}
		all[kernel.Family(kernel.SetOwners, is4)] = Layout{key: []field{mac, address}}
		all[kernel.Family(kernel.SetEnclosed, is4)] = Layout{key: []field{address}}
		all[kernel.Family(kernel.SetHairpins, is4)] = Layout{key: []field{address, address}}
		all[kernel.Family(kernel.SetReturns, is4)] = Layout{key: []field{address, address}}
	}
	return all, Layout{key: []field{mark}, value: []field{mac}}
}

// Set is the kernel's object.
func (l Layout) Set(t *nftables.Table, name string) *nftables.Set {
	s := &nftables.Set{Table: t, Name: name, KeyType: concatenated(l.key), Concatenation: len(l.key) > 1, KeyByteOrder: binaryutil.BigEndian, Counter: l.Counter}
	if s.KeyType.Name == nftables.TypeMark.Name {
		s.KeyByteOrder = binaryutil.NativeEndian
	}
	switch {
	case l.Verdict:
		s.IsMap, s.DataType = true, nftables.TypeVerdict
	case len(l.value) > 0:
		s.IsMap, s.DataType = true, concatenated(l.value)
	}
	return s
}

// Element is one as the kernel has it.
func (l Layout) Element(e kernel.Entry) (nftables.SetElement, error) {
	key, err := encodeAll(l.key, e.Key)
	if err != nil {
		return nftables.SetElement{}, err
	}
	out := nftables.SetElement{Key: key}
	switch {
	case l.Verdict:
		out.VerdictData = &expr.Verdict{Kind: expr.VerdictJump, Chain: e.Value}
	case len(l.value) > 0:
		if out.Val, err = encodeAll(l.value, e.Value); err != nil {
			return nftables.SetElement{}, err
		}
	}
	return out, nil
}

// Key reads an element's.
func (l Layout) Key(e nftables.SetElement) string { return decodeAll(l.key, e.Key) }

// Text reads an element's value: a chain's name where it leads to one.
func (l Layout) Text(e nftables.SetElement) string {
	if l.Verdict {
		return chainOf(e.Val)
	}
	return decodeAll(l.value, e.Val)
}

// chainOf reads the chain that an element leads to. What the library gives is the kernel's nested attributes.
func chainOf(data []byte) string {
	attributes, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return ""
	}
	for attributes.Next() {
		if attributes.Type() == unix.NFTA_VERDICT_CHAIN {
			return attributes.String()
		}
	}
	return ""
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
