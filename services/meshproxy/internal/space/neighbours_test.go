package space_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestNeighboursAreBounded: a container that sends to thousands of addresses of its network has the kernel ask for as many as the bound
// says, and goes on with whom it knows.
func TestNeighboursAreBounded(t *testing.T) {
	r := newRig(t)
	r.tell([]int{11, 12, 13}, []int{11, 12, 13})
	before, err := r.dial("tcp", "10.0.0.11:80", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	r.client.do(func() error {
		refused := 0
		for i := range 400 {
			conn, err := net.Dial("udp", fmt.Sprintf("[fd01::1:%x]:9000", i))
			if err != nil {
				return err
			}
			if _, err := conn.Write([]byte("x")); err != nil {
				refused++
			}
			conn.Close()
		}
		all, err := netlink.NeighList(0, netlink.FAMILY_V6)
		if err != nil {
			return err
		}
		asked := 0
		for _, n := range all {
			if n.IP.To16()[13] == 1 && n.IP.IsPrivate() {
				asked++
			}
		}
		if asked < 50 || asked > 100 || refused < 300 {
			t.Errorf("of 400 neighbours %d are asked for and %d refused, want 100 at most", asked, refused)
		}
		return nil
	})
	if got := hear(before); got != "11" {
		t.Errorf("a connection of before says %q", got)
	}
	if _, err := r.dial("tcp", "10.0.0.12:80", 0); err != nil {
		t.Errorf("by the other family: %v", err)
	}
}
