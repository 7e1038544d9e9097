package alloc

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const tcp, udp = typesv1.Protocol_PROTOCOL_TCP, typesv1.Protocol_PROTOCOL_UDP

// held is what somebody holds.
type held map[string]bool

func (h held) taken(claim string) bool { return h[claim] }

// TestPortNextFit: the next free port after the last one given; one that was given back comes round last; the range ends.
func TestPortNextFit(t *testing.T) {
	h, c := held{}, &Cursors{}
	give := func(p typesv1.Protocol) uint32 {
		port, ok := c.Port(h.taken, p, 30000, 30003)
		if !ok {
			return 0
		}
		h[state.PortClaim(p, port)] = true
		return port
	}
	back := func(port uint32) { delete(h, state.PortClaim(tcp, port)) }
	for i, step := range []struct {
		back uint32
		want uint32
	}{
		{want: 30000}, {want: 30001}, {back: 30000, want: 30002}, {want: 30003}, {want: 30000}, {want: 0}, {back: 30002, want: 30002},
	} {
		if step.back != 0 {
			back(step.back)
		}
		if got := give(tcp); got != step.want {
			t.Errorf("step %d: got %d, want %d", i, got, step.want)
		}
	}
	if got := give(udp); got != 30000 {
		t.Errorf("udp has a space of its own, got %d", got)
	}
	if _, ok := c.Port(h.taken, tcp, 31000, 30999); ok {
		t.Error("an empty range gave a port")
	}
	if got, ok := c.Port(h.taken, tcp, 40000, 40001); !ok || got != 40000 {
		t.Errorf("after the range was changed: %d", got)
	}
}

// TestSubnet: /20 after /20, around what is in use, and none when the pool is full.
func TestSubnet(t *testing.T) {
	c, pool := &Cursors{}, netip.MustParsePrefix("10.0.0.0/18")
	used := []netip.Prefix{netip.MustParsePrefix("10.0.17.0/24")}
	for _, want := range []string{"10.0.0.0/20", "10.0.32.0/20", "10.0.48.0/20"} {
		got, ok := c.Subnet(pool, used)
		if !ok || got.String() != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		used = append(used, got)
	}
	if got, ok := c.Subnet(pool, used); ok {
		t.Errorf("a full pool gave %s", got)
	}
	if got, ok := c.Subnet(pool, used[:3]); !ok || got.String() != "10.0.48.0/20" {
		t.Errorf("after one was given back: %s", got)
	}
	if _, ok := c.Subnet(netip.MustParsePrefix("10.0.0.0/24"), nil); ok {
		t.Error("a pool smaller than a subnet gave one")
	}
}

// TestVIP: no network, gateway or broadcast address is ever given, and none twice.
func TestVIP(t *testing.T) {
	h, c, subnet := held{}, &Cursors{}, netip.MustParsePrefix("10.5.0.0/29")
	for _, want := range []string{"10.5.0.2", "10.5.0.3", "10.5.0.4", "10.5.0.5", "10.5.0.6"} {
		got, ok := c.VIP(h.taken, "n", subnet, subnet)
		if !ok || got.String() != want {
			t.Fatalf("got %s, want %s", got, want)
		}
		h[state.AddressClaim("n", got.String())] = true
	}
	if got, ok := c.VIP(h.taken, "n", subnet, subnet); ok {
		t.Errorf("a full subnet gave %s", got)
	}
	if got, ok := c.VIP(h.taken, "other", subnet, subnet); !ok || got.String() != "10.5.0.2" {
		t.Errorf("another network: %s", got)
	}
}

// TestVIPRange: of a range within the subnet all addresses are given but the subnet's own, and no others; also of IPv6.
func TestVIPRange(t *testing.T) {
	for _, tc := range []struct{ subnet, within, want string }{
		{"10.5.0.0/24", "10.5.0.252/30", "10.5.0.252 10.5.0.253 10.5.0.254"},
		{"10.5.0.0/24", "10.5.0.0/30", "10.5.0.2 10.5.0.3"},
		{"fd01::/64", "fd01::f000/126", "fd01::f000 fd01::f001 fd01::f002 fd01::f003"},
		{"fd01::/126", "fd01::/126", "fd01::2 fd01::3"},
	} {
		h, c := held{}, &Cursors{}
		var got []string
		for {
			a, ok := c.VIP(h.taken, "n", netip.MustParsePrefix(tc.subnet), netip.MustParsePrefix(tc.within))
			if !ok {
				break
			}
			h[state.AddressClaim("n", a.String())] = true
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s of %s gave %v, want %s", tc.within, tc.subnet, got, tc.want)
		}
	}
}

// TestSubnet6: a private /64, another one for another seed, around what is in use.
func TestSubnet6(t *testing.T) {
	a, ok := Subnet6("a", nil)
	b, okB := Subnet6("b", nil)
	c, okC := Subnet6("a", []netip.Prefix{a})
	if !ok || !okB || !okC || a == b || a == c || a.Bits() != 64 || !a.Addr().IsPrivate() || a.Masked() != a {
		t.Errorf("got %s, %s, %s", a, b, c)
	}
}

// TestVNI: from 4096 on, skipping what is taken.
func TestVNI(t *testing.T) {
	h, c := held{state.VNIClaim(4097): true}, &Cursors{}
	for _, want := range []uint32{4096, 4098, 4099} {
		if got, ok := c.VNI(h.taken); !ok || got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
}
