package tables_test

import (
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestTunnelFramesAreNotTracked: what is between two machines is tracked as what it is, once, and not in its envelopes as well.
func TestTunnelFramesAreNotTracked(t *testing.T) {
	w := newWorld(t)
	w.publish("b1")
	if got, err := asks(w.client, "tcp", "198.51.100.1:30000"); err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	for _, machine := range []string{"a", "b"} {
		var inside, envelopes int
		w.machines[machine].do(func() error {
			all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
			for _, f := range all {
				switch {
				case f.Forward.Protocol == unix.IPPROTO_UDP && f.Forward.DstPort == 8477:
					envelopes++
				case f.Forward.Protocol == unix.IPPROTO_TCP && f.Reverse.SrcPort == 8000:
					inside++
				}
			}
			return err
		})
		if inside != 1 || envelopes > 0 {
			t.Errorf("machine %s tracks the connection %d times, and %d envelopes; want 1 and none", machine, inside, envelopes)
		}
	}
}
