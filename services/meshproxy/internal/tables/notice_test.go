package tables_test

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

// TestWatchHearsOfOthers: what somebody else takes away is noticed at once, whatever it is, and comes back whole; what we
// change ourselves in the packet filter is not told.
func TestWatchHearsOfOthers(t *testing.T) {
	w := newWorld(t)
	w.publish("a1")
	a := w.machines["a"]
	heard := make(chan struct{}, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.try(func() error { return w.tables["a"].Watch(ctx, func() { heard <- struct{}{} }) }) // ends with ctx
	}()
	defer func() { cancel(); <-done }()
	noticed := func(within time.Duration) bool {
		select {
		case <-heard:
			return true
		case <-time.After(within):
			return false
		}
	}
	drain := func() {
		for noticed(100 * time.Millisecond) {
		}
	}
	sh := func(command string) {
		t.Helper()
		a.do(func() error {
			out, err := exec.Command("sh", "-c", command).CombinedOutput()
			if err != nil {
				t.Log(string(out))
			}
			return err
		})
	}
	ready := false
	for range 5 { // until the watch is there
		sh("ip link set shoal0 mtu 1440; ip link set shoal0 mtu 1450")
		if ready = noticed(time.Second); ready {
			break
		}
	}
	if !ready {
		t.Fatal("nobody heard of a changed link")
	}
	for _, c := range []string{
		"nft flush chain inet shoal forward",
		"nft delete element inet shoal ports4 '{ tcp . 30000 }'",
		"nft delete table netdev shoal",
		"nft delete table inet shoal",
		"ip rule del pref 8477",
		"ip -6 rule del pref 8477",
		"ip route flush table 8477",
		"ip route del 10.128.2.0/24",
		"ip addr del 10.128.1.1/32 dev shoal0",
		"ip neigh flush nud permanent dev shoal-mesh",
		"bridge fdb del 02:43:c6:33:64:02 dev shoal-mesh dst 198.51.100.2",
		"ip link del shoal-mesh",
	} {
		drain()
		sh(c)
		if !noticed(time.Second) {
			t.Errorf("nobody heard of: %s", c)
		}
		delete(w.kernel, "a") // the kernel is read again
		w.bring("a")
		tb := here{a, w.tables["a"]}
		have, err := tb.Read(t.Context(), keysOf(w.kernel["a"].Settings))
		if err != nil {
			t.Fatal(err)
		}
		if left := kernel.Diff(w.kernel["a"], have); len(left) > 0 {
			t.Errorf("after %s and the repair still differs: %s", c, left)
		}
	}
	// A container's port is locked to its entry, which the agent has made: it comes back by itself.
	sh("bridge link set dev shoalva2 learning off locked on; bridge fdb replace 02:42:0a:80:01:06 dev shoalva2 master static")
	sh("bridge fdb del 02:42:0a:80:01:06 dev shoalva2 master")
	servePackets(t, w.client, "198.51.100.9:9000", "outside")
	if got, err := askPacket(w.containers["a2"], "198.51.100.9:9000", ""); err != nil {
		t.Errorf("after its port's entry was taken away a container hears %q, %v", got, err)
	}
	drain()
	w.publish("b1")
	if noticed(300 * time.Millisecond) {
		t.Error("our own change of the tables was taken for somebody else's")
	}
}
