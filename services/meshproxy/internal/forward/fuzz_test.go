package forward

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
)

// heard is a connection from which some bytes come, and no more.
type heard struct {
	net.Conn
	io.Reader
}

func (h heard) Read(p []byte) (int, error) { return h.Reader.Read(p) }

// FuzzPeer: whatever comes from another meshproxy, or from who has got its certificate, a header is at most as large as it may be, and
// what follows is chunks that are there in full, or an error. Nothing is read beyond.
func FuzzPeer(f *testing.F) {
	for _, h := range []*meshv1.ForwardHeader{{}, {Network: "tcp", TaskId: "t", Address: "10.128.1.5:80", Client: "203.0.113.9:4000"}} {
		data, err := proto.Marshal(h)
		if err != nil {
			f.Fatal(err)
		}
		data = append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
		f.Add(append(data, 0, 5, 'h', 'e', 'l', 'l', 'o', 0, 0))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 0, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		from := bytes.NewReader(data)
		l := newLink(heard{Reader: from}, "peer")
		var h meshv1.ForwardHeader
		if err := l.receive(&h); err != nil {
			return
		}
		if size := proto.Size(&h); size > maxHeader {
			t.Fatalf("a header of %d bytes", size)
		}
		taken := 4 + int(binary.BigEndian.Uint32(data))
		for {
			n, err := l.next()
			if err != nil {
				return
			}
			taken += 2 + n
			if n == 0 {
				break
			}
			if _, err := io.CopyN(io.Discard, l.in, int64(n)); err != nil {
				return
			}
		}
		if read := len(data) - from.Len() - l.in.Buffered(); read != taken {
			t.Fatalf("%d bytes were taken for a stream of %d", read, taken)
		}
	})
}

// FuzzProxyHeader: whoever calls by whichever address, the header of the PROXY protocol says exactly that, and is as long as it says.
func FuzzProxyHeader(f *testing.F) {
	for _, pair := range [][2]string{{"203.0.113.9", "198.51.100.1"}, {"2001:db8::9", "2001:db8::1"}, {"203.0.113.9", "2001:db8::1"}, {"::ffff:203.0.113.9", "::"}} {
		f.Add(netip.MustParseAddr(pair[0]).AsSlice(), netip.MustParseAddr(pair[1]).AsSlice(), uint16(40000), uint16(443))
	}
	f.Fuzz(func(t *testing.T, source, target []byte, from, to uint16) {
		a, okA := netip.AddrFromSlice(source)
		b, okB := netip.AddrFromSlice(target)
		if !okA || !okB {
			return
		}
		head := proxyHeader(netip.AddrPortFrom(a, from), netip.AddrPortFrom(b, to))
		gotA, gotB := parseProxy(t, head)
		if same := func(x, y netip.Addr) bool { return x.As16() == y.As16() }; !same(gotA.Addr(), a) || !same(gotB.Addr(), b) || gotA.Port() != from || gotB.Port() != to {
			t.Fatalf("%s:%d to %s:%d is told as %s to %s", a, from, b, to, gotA, gotB)
		}
	})
}

// parseProxy reads a header as its receiver would (The PROXY protocol, section 2.2).
func parseProxy(t *testing.T, head []byte) (source, target netip.AddrPort) {
	t.Helper()
	rest, ok := bytes.CutPrefix(head, []byte("\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"))
	if !ok || len(rest) < 4 || rest[0] != 0x21 || int(binary.BigEndian.Uint16(rest[2:])) != len(rest)-4 {
		t.Fatalf("no header of version 2: %x", head)
	}
	size, known := map[byte]int{0x11: 4, 0x21: 16}[rest[1]]
	if rest = rest[4:]; !known || len(rest) != 2*size+4 {
		t.Fatalf("family or length are none: %x", head)
	}
	a, _ := netip.AddrFromSlice(rest[:size])
	b, _ := netip.AddrFromSlice(rest[size : 2*size])
	ports := rest[2*size:]
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(ports)), netip.AddrPortFrom(b, binary.BigEndian.Uint16(ports[2:]))
}
