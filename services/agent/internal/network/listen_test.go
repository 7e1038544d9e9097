package network

import (
	"fmt"
	"net"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/shoalproject/shoal/internal/errs"
)

// TestListens: what takes connections from outside is seen, of both families; what is for the container itself is none, nor is a
// socket for datagrams, which one that asks others has too.
func TestListens(t *testing.T) {
	k := machine(t)
	bridge(t, "shoal0", "10.128.1.1/24", "fd00:1::1/64")
	bridge(t, "shoalbr4097")
	if _, err := k.Listens("nobody.0"); !errs.Is(err, errs.NotFound) {
		t.Errorf("a container without a namespace: %v", err)
	}
	w := wiring("a.0", "10.128.1.2/32", "fd00:1::2/128", "10.0.16.2/20")
	build(t, k, w)
	within := func(f func() error) {
		t.Helper()
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		home, err := netns.Get()
		must(t, err)
		defer home.Close()
		space, err := netns.GetFromPath(k.spaces + "/a.0")
		must(t, err)
		defer space.Close()
		must(t, netns.Set(space))
		defer func() { must(t, netns.Set(home)) }()
		must(t, f())
	}
	inside := func(network, address string) (end func()) {
		t.Helper()
		within(func() error {
			if network[:3] == "udp" {
				pc, err := net.ListenPacket(network, address)
				end = func() { pc.Close() }
				return err
			}
			l, err := net.Listen(network, address)
			end = func() { l.Close() }
			return err
		})
		return end
	}
	for _, tc := range []struct {
		network, address string
		want             bool
	}{
		{"tcp4", "127.0.0.1:80", false}, {"tcp6", "[::1]:80", false}, {"udp4", "0.0.0.0:53", false},
		{"tcp4", "10.0.16.2:80", true}, {"tcp", ":80", true}, {"tcp6", "[fd00:1::2]:80", true},
	} {
		t.Run(fmt.Sprint(tc.network, " ", tc.address), func(t *testing.T) {
			before, err := k.Listens("a.0")
			if err != nil || before {
				t.Fatalf("nothing listens: %t, %v", before, err)
			}
			end := inside(tc.network, tc.address)
			defer end()
			if got, err := k.Listens("a.0"); got != tc.want || err != nil {
				t.Errorf("%t, %v; want %t", got, err, tc.want)
			}
			within(func() error {
				if got, err := asked(); got != tc.want || err != nil {
					t.Errorf("by asking: %t, %v; want %t", got, err, tc.want)
				}
				if got := read(); got != tc.want {
					t.Errorf("by reading: %t, want %t", got, tc.want)
				}
				return nil
			})
		})
	}
}
