package tables_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/run"
)

// TestMeshproxyBesideTheKernelWithOneClient: the meshproxy of a task's machine speaks with its client's address, while the kernel leads
// connections of that client to the same task. Its ports are none that a client's system chooses: with the same two ends the answers to one
// connection would come to the other.
func TestMeshproxyBesideTheKernelWithOneClient(t *testing.T) {
	w := newWorld(t)
	w.proxied("")
	w.publish("b1")
	talk := startTalker(t, w.containers["b1"])
	defer talk.Close()
	direct, err := dialFrom(w.client, "198.51.100.9:40100", "198.51.100.1:30001")
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	env := run.Env{}.OrMachine("test")
	for _, network := range []string{"tcp", "udp"} {
		for range 20 {
			to := netip.MustParseAddrPort(net.JoinHostPort(inside("b1", true), map[string]string{"tcp": "8001", "udp": "8000"}[network]))
			c, err := within{w.machines["b"], env.Net}.DialFrom(t.Context(), network, to, addr("198.51.100.9"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if own := netip.MustParseAddrPort(c.LocalAddr().String()); own.Addr() != addr("198.51.100.9") || own.Port() >= 30000 {
				t.Fatalf("%s: it speaks from %s, which may be a client's own", network, own)
			}
			_ = c.SetDeadline(time.Now().Add(2 * time.Second))
			if _, err := fmt.Fprintln(c, "x"); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 100)); err != nil || n == 0 {
				t.Fatalf("%s: %d bytes, %v", network, n, err)
			}
		}
	}
	if got, err := say(direct, "x\n"); err != nil || !strings.HasPrefix(got, "198.51.100.9:") {
		t.Errorf("by the kernel: %q, %v; want the client's address", got, err)
	}
}
