package quota_test

import (
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/shoalproject/shoal/internal/testx/nstest"
	"github.com/shoalproject/shoal/services/meshproxy/internal/quota"
)

// A machine whose link shoal0 leads to two containers' addresses, and that tracks connections.
const world = `
ip link set lo up
ip link add shoal0 type veth peer name c0
unshare -n sleep 60 & pid=$!
while [ "$(readlink /proc/$pid/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do :; done
ip link set c0 netns $pid
ip addr add 10.128.1.1/24 dev shoal0; ip link set shoal0 up
nsenter -t $pid -n sh -ec 'ip addr add 10.128.1.5/24 dev c0; ip addr add 10.128.1.6/24 dev c0; ip link set c0 up; ip route add default via 10.128.1.1'
nft add table inet track; nft add chain inet track c '{ type filter hook prerouting priority 0; }'; nft add rule inet track c ct state new counter
echo $pid`

// flood sends a datagram to each of so many ports of the gateway, in the network of a process.
func flood(t *testing.T, pid, from string, n int) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()         // never unlocked: the thread ends with the goroutine
		number, _ := strconv.Atoi(pid) // 0 is nobody
		ns, err := netns.GetFromPid(number)
		if err == nil {
			err = netns.Set(ns)
		}
		if err != nil {
			t.Error(err)
			return
		}
		defer ns.Close()
		for port := range n {
			conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.IPv4(10, 128, 1, 1), Port: 20000 + port})
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = conn.Write([]byte("x")) // refused, or dropped
			conn.Close()
		}
	}()
	<-done
}

// TestFlood: a container that floods connections gets as many as the limit, and another one is not harmed.
func TestFlood(t *testing.T) {
	nstest.Inside(t, func() {
		const most = 40
		for range 2 { // the second time there is nothing to do
			if _, err := quota.Enforce(most); err != nil {
				t.Fatal(err)
			}
		}
		if made, err := quota.Enforce(most); made || err != nil {
			t.Errorf("done again: %t, %v", made, err)
		}
		pid := strings.TrimSpace(nstest.Sh(t, strings.Replace(world, "sleep 60 &", "sleep 60 >/dev/null 2>&1 &", 1)))
		defer nstest.Sh(t, "kill "+pid)
		begin := func(from string, n int) int {
			flood(t, pid, from, n)
			known, err := strconv.Atoi(strings.TrimSpace(nstest.Sh(t, "grep -c 'src="+from+" dst=10.128.1.1' /proc/net/nf_conntrack || true")))
			if err != nil {
				t.Error(err)
			}
			return known
		}
		if got := begin("10.128.1.5", 2*most); got != most {
			t.Errorf("a container that floods has %d connections, want %d", got, most)
		}
		if got := begin("10.128.1.6", 5); got != 5 {
			t.Errorf("its neighbour has %d connections of 5", got)
		}
		if err := quota.Close(); err != nil {
			t.Fatal(err)
		}
		if left := nstest.Sh(t, "nft list tables"); strings.Contains(left, "quota") {
			t.Errorf("left: %s", left)
		}
	})
}
