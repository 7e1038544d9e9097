//go:build chaos

package surroundings_test

import (
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/testx/nstest"
	"github.com/shoalproject/shoal/services/meshproxy/internal/examine"
	"github.com/shoalproject/shoal/services/meshproxy/internal/surroundings"
)

// track has the packet filter track connections, without which the kernel counts none.
const track = `nft add table inet track; nft add chain inet track c '{ type filter hook prerouting priority 0; }'; nft add rule inet track c ct state new counter`

// most is how many connections this test makes at most: a machine with more room is not filled.
const most = 300_000

// TestConntrackNearlyFull: of a kernel whose tracked connections are three quarters of what it has room for, the doctor says so before new
// ones are dropped; and of one with room that it has it.
func TestConntrackNearlyFull(t *testing.T) {
	nstest.Inside(t, func() {
		nstest.Sh(t, track)
		if got := told(t); !strings.HasPrefix(got, "0 of at most") {
			t.Fatalf("in the beginning it says %q", got)
		}
		f, err := surroundings.Facts()
		if err != nil {
			t.Fatal(err)
		}
		n := int(f.Room) * 3 / 4
		if n > most {
			t.Skipf("this kernel has room for %d connections", f.Room)
		}
		nl, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			t.Fatal(err)
		}
		defer nl.Close()
		for i := range n {
			if err := nl.ConntrackCreate(netlink.ConntrackTable, netlink.FAMILY_V4, flow(i)); err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
		}
		if got := told(t); !strings.Contains(got, "(75 %)") {
			t.Errorf("with %d connections it says %q", n+1, got)
		}
	})
}

// flow is the i-th: no two have the same addresses and ports.
func flow(i int) *netlink.ConntrackFlow {
	a, b := net.IPv4(10, 9, byte(i>>24), byte(i>>16)).To4(), net.IPv4(10, 8, 0, 1).To4()
	port := uint16(i)
	return &netlink.ConntrackFlow{
		FamilyType: netlink.FAMILY_V4, TimeOut: 600,
		Forward: netlink.IPTuple{SrcIP: a, DstIP: b, SrcPort: port, DstPort: 53, Protocol: unix.IPPROTO_UDP},
		Reverse: netlink.IPTuple{SrcIP: b, DstIP: a, SrcPort: 53, DstPort: port, Protocol: unix.IPPROTO_UDP},
	}
}

// told is what the doctor says of tracked connections, in this namespace.
func told(t *testing.T) string {
	t.Helper()
	f, err := surroundings.Facts()
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range examine.Machine(f, nil) {
		if found.Check == "conntrack" {
			return found.What
		}
	}
	t.Fatal("it says nothing of tracked connections")
	return ""
}
