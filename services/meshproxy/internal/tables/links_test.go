package tables_test

import (
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestBridgeComesWithItsAddress: whoever sees the containers' bridge sees it under the MAC address that it keeps. The agent waits for
// it, and tells a container under which address its gateway is; with another one the container was silent for good.
func TestBridgeComesWithItsAddress(t *testing.T) {
	w := newWorld(t)
	w.publish("a1")
	a := w.machines["a"]
	updates, done := make(chan netlink.LinkUpdate, 100), make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{Namespace: &a.ns}); err != nil {
		t.Fatal(err)
	}
	var kept string
	a.do(func() error {
		bridge, err := netlink.LinkByName("shoal0")
		if err != nil {
			return err
		}
		kept = bridge.Attrs().HardwareAddr.String()
		return netlink.LinkDel(bridge)
	})
	delete(w.kernel, "a") // the kernel is read again
	w.bring("a")
	a.do(func() error { return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "last"}}) })
	seen := 0
	for u := range updates {
		if u.Attrs().Name == "last" {
			break
		}
		if u.Attrs().Name != "shoal0" || u.Header.Type != unix.RTM_NEWLINK {
			continue
		}
		if got := u.Attrs().HardwareAddr.String(); got != kept {
			t.Errorf("the bridge was seen under %s, it keeps %s", got, kept)
		}
		seen++
	}
	if seen == 0 {
		t.Error("the bridge did not come back")
	}
}
