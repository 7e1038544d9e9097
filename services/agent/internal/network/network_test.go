package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// machine makes the calling test's thread a machine of its own, with the bridges that a meshproxy would have made.
func machine(t *testing.T) *Kernel {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	runtime.LockOSThread() // and never unlocks: the thread ends with the test's goroutine
	space, err := netns.New()
	if err != nil {
		t.Skipf("this kernel gives no network namespace: %v", err)
	}
	t.Cleanup(func() { _ = space.Close() })
	for _, sysctl := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/"+sysctl, []byte("1"), 0); err != nil {
			t.Logf("%s: %v", sysctl, err)
		}
	}
	k := New(t.TempDir())
	return k
}

func bridge(t *testing.T, name string, addresses ...string) {
	t.Helper()
	b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1450, HardwareAddr: net.HardwareAddr{0x02, 0x42, 0x0a, 0x80, 1, byte(len(name))}}}
	must(t, netlink.LinkAdd(b))
	// A bridge that has been there for long: its own addresses are not tried out any more.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/accept_dad", []byte("0"), 0)
	must(t, netlink.LinkSetUp(b))
	for _, a := range addresses {
		must(t, netlink.AddrAdd(b, addressOf(netip.MustParsePrefix(a))))
	}
	_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/send_redirects", []byte("0"), 0)
}

func wiring(id, v4, v6, overlay string) container.Wiring {
	return container.Wiring{ID: id, Hostname: "host-" + id, Links: []container.Link{
		{
			Network: "machine", Addresses: []netip.Prefix{netip.MustParsePrefix(v4), netip.MustParsePrefix(v6)},
			Gateways: []netip.Addr{netip.MustParseAddr("10.128.1.1"), netip.MustParseAddr("fd00:1::1")},
		},
		{Network: "front", VNI: 4097, Addresses: []netip.Prefix{netip.MustParsePrefix(overlay)}},
	}}
}

// TestTwoContainers: they reach each other over both networks, by IPv4 and IPv6, and nothing of them is left afterwards; also where one
// has user ids of its own.
func TestTwoContainers(t *testing.T) {
	t.Run("of the machine's users", func(t *testing.T) { twoContainers(t, container.IDs{}) })
	t.Run("one with users of its own", func(t *testing.T) { twoContainers(t, container.IDs{First: 1 << 30}) })
}

func twoContainers(t *testing.T, ids container.IDs) {
	k := machine(t)
	a, b := wiring("a.0", "10.128.1.2/32", "fd00:1::2/128", "10.0.16.2/20"), wiring("b.0", "10.128.1.3/32", "fd00:1::3/128", "10.0.16.3/20")
	a.IDs = ids
	bridge(t, "shoal0", "10.128.1.1/24", "fd00:1::1/64")
	if _, err := k.Make(t.Context(), a); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), `waits for the bridge shoalbr4097 of network "front"`) {
		t.Fatalf("without the overlay's bridge: %v", err)
	}
	bridge(t, "shoalbr4097")
	boxA, boxB := build(t, k, a), build(t, k, b)
	for _, addr := range []string{"10.128.1.3", "fd00:1::3", "10.0.16.3"} {
		if err := reach(t, boxA.NetNS, boxB.NetNS, addr); err != nil {
			t.Errorf("a can't reach b at %s: %v", addr, err)
		}
	}
	inside(t, boxA.NetNS, func() error {
		l, err := netlink.LinkByName("eth1")
		if err == nil && (l.Attrs().HardwareAddr.String() != "02:42:0a:00:10:02" || l.Attrs().MTU != 1450) {
			t.Errorf("eth1 has %s, MTU %d", l.Attrs().HardwareAddr, l.Attrs().MTU)
		}
		return err
	})
	var hosts unix.Stat_t
	must(t, unix.Stat(boxA.Hosts, &hosts))
	if hosts.Uid != ids.First || (boxA.UserNS != "") != ids.Mapped() {
		t.Errorf("its hosts file belongs to %d, its user namespace is %q", hosts.Uid, boxA.UserNS)
	}
	again := build(t, k, a) // an agent that died in the middle begins anew
	if err := reach(t, again.NetNS, boxB.NetNS, "10.128.1.3"); err != nil {
		t.Error(err)
	}
	must(t, k.Sweep(t.Context(), func(id string) bool { return id == "b.0" }))
	must(t, k.Remove(t.Context(), "b.0"))
	must(t, k.Remove(t.Context(), "b.0"))
	var left []string
	for range 100 { // the kernel ends namespaces in its own time
		if left = hostEnds(t); len(left) == 0 {
			break
		}
		must(t, run.Sleep(t.Context(), 50*time.Millisecond))
	}
	if len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	for _, dir := range []string{k.spaces, k.users, k.files} {
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s holds %v", dir, left)
		}
	}
}

func hostEnds(t *testing.T) (names []string) {
	t.Helper()
	links, err := netlink.LinkList()
	if errors.Is(err, netlink.ErrDumpInterrupted) { // one has just gone: what was read is no list of any moment
		return []string{"those of a list that changed while it was read"}
	}
	must(t, err)
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, hostEnd) {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

// TestFiles: a container asks its machine's meshproxy for every name; search domains and options are the machine's.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	k := New(dir)
	k.resolv = filepath.Join(dir, "resolv.conf")
	box := wiring("a.0", "10.128.1.2/32", "fd00:1::2/128", "10.0.16.2/20")
	if got := k.resolver(box); got != "nameserver 169.254.53.53\noptions ndots:0 timeout:2 attempts:5\n" {
		t.Errorf("got %q", got)
	}
	must(t, os.WriteFile(k.resolv, []byte("nameserver 127.0.0.53\nsearch example.org corp\noptions edns0 ndots:2\n"), 0o600))
	want := "nameserver 169.254.53.53\nsearch example.org corp\noptions edns0 ndots:2 timeout:2 attempts:5\n"
	if got := k.resolver(box); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := k.resolver(wiring("a.0", "fd00:1::2/128", "fd00:1::3/128", "10.0.16.2/20")); !strings.HasPrefix(got, "nameserver fd73:686f:616c::53\n") {
		t.Errorf("got %q", got)
	}
	box.DNS = &typesv1.DNSConfig{Nameservers: []string{"9.9.9.9"}, Search: []string{"own"}, Options: []string{"ndots:7", "rotate"}}
	if got := k.resolver(box); got != "nameserver 169.254.53.53\nsearch own\noptions edns0 ndots:7 rotate timeout:2 attempts:5\n" {
		t.Errorf("a container's own: %q", got)
	}
	box.Hosts, box.Links[0].Gateways = []string{"10.1.1.1 db base", "host-gateway box"}, []netip.Addr{netip.MustParseAddr("10.128.1.1")}
	if got := hosts(box); !strings.HasSuffix(got, "\n10.1.1.1\tdb base\n10.128.1.1\tbox\n") {
		t.Errorf("a container's own: %q", got)
	}
	if got := hosts(wiring("a.0", "10.128.1.2/32", "fd00:1::2/128", "10.0.16.2/20")); !strings.HasSuffix(got, "\n10.0.16.2\thost-a.0\n") {
		t.Errorf("got %q", got)
	}
}

func build(t *testing.T, k *Kernel, w container.Wiring) container.Sandbox {
	t.Helper()
	box, err := k.Make(t.Context(), w)
	must(t, err)
	t.Cleanup(func() { _ = k.Remove(t.Context(), w.ID) })
	return box
}

// reach dials from one namespace to a listener in the other.
func reach(t *testing.T, from, to, addr string) error {
	t.Helper()
	var l net.Listener
	inside(t, to, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(addr, "8000"))
		return err
	})
	defer l.Close()
	var err error
	inside(t, from, func() error {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", net.JoinHostPort(addr, "8000"), 3*time.Second); err == nil {
			err = c.Close()
		}
		return nil
	})
	return err
}

// inside runs f in a namespace, on the test's own thread.
func inside(t *testing.T, path string, f func() error) {
	t.Helper()
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	space, err := netns.GetFromPath(path)
	must(t, err)
	defer space.Close()
	must(t, netns.Set(space))
	err = f()
	must(t, errors.Join(err, netns.Set(home)))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A container that shares the machine's network has no namespace that a meshproxy could be handed; what listens in it is
// reached on the machine itself. Its files are the machine's, with its own lines.
func TestOnTheMachine(t *testing.T) {
	k := machine(t)
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	k.hosts, k.resolv = filepath.Join(t.TempDir(), "hosts"), filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(k.hosts, []byte("192.0.2.7 printer\n"), 0o600))
	must(t, os.WriteFile(k.resolv, []byte("nameserver 192.0.2.53\n"), 0o600))
	box, err := k.Make(t.Context(), container.Wiring{ID: "a", Hostname: "host-a", Host: true, Hosts: []string{"192.0.2.8 db", "host-gateway node"}})
	must(t, err)
	t.Cleanup(func() { _ = k.Remove(context.WithoutCancel(t.Context()), "a") }) // a red test leaves no namespace mounted
	if ids, err := k.Spaces(); box.NetNS != "" || err != nil || len(ids) != 0 {
		t.Errorf("it has the namespace %q; %v, %v", box.NetNS, ids, err)
	}
	for path, want := range map[string]string{box.Hosts: "192.0.2.7 printer\n192.0.2.8\tdb\n127.0.0.1\tnode\n", box.Resolv: "nameserver 192.0.2.53\n"} {
		if raw, err := os.ReadFile(path); err != nil || string(raw) != want {
			t.Errorf("%s: %q, %v", path, raw, err)
		}
	}
	var listen net.ListenConfig
	l, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	conn, err := k.Dial(t.Context(), "a", l.Addr().(*net.TCPAddr).AddrPort())
	must(t, err)
	must(t, conn.Close())
	must(t, k.Remove(t.Context(), "a"))
	if _, err := k.Dial(t.Context(), "a", l.Addr().(*net.TCPAddr).AddrPort()); !errs.Is(err, errs.Unavailable) {
		t.Errorf("after its end: %v", err)
	}
}

// TestNeighbourTakesNothing: a container that speaks under its neighbour's MAC address gets none of its traffic, and cannot answer for
// its gateway.
func TestNeighbourTakesNothing(t *testing.T) {
	k := machine(t)
	bridge(t, "shoal0", "10.128.1.1/24", "fd00:1::1/64")
	bridge(t, "shoalbr4097")
	liar := build(t, k, wiring("a.0", "10.128.1.2/32", "fd00:1::2/128", "10.0.16.2/20"))
	b := build(t, k, wiring("b.0", "10.128.1.3/32", "fd00:1::3/128", "10.0.16.3/20"))
	c := build(t, k, wiring("c.0", "10.128.1.4/32", "fd00:1::4/128", "10.0.16.4/20"))
	must(t, reach(t, liar.NetNS, c.NetNS, "10.0.16.4"))
	must(t, reach(t, c.NetNS, b.NetNS, "10.0.16.3"))
	inside(t, liar.NetNS, func() error {
		eth, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		return netlink.LinkSetHardwareAddr(eth, net.HardwareAddr{0x02, 0x42, 0x0a, 0, 16, 3}) // b's
	})
	if err := reach(t, liar.NetNS, c.NetNS, "10.0.16.4"); err == nil {
		t.Error("a container got an answer under its neighbour's MAC address")
	}
	must(t, reach(t, c.NetNS, b.NetNS, "10.0.16.3"))
	// Under MAC and IP address of its neighbour together, which no rule about addresses can tell from the neighbour.
	inside(t, liar.NetNS, func() error {
		return netlink.AddrAdd(eth1(t), &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("10.0.16.3/32"))})
	})
	if heard(t, liar.NetNS, "10.0.16.3", c.NetNS, "10.0.16.4") {
		t.Error("a container spoke under its neighbour's MAC and IP address")
	}
	if !heard(t, b.NetNS, "10.0.16.3", c.NetNS, "10.0.16.4") {
		t.Error("and the neighbour itself did not")
	}
	inside(t, b.NetNS, func() error {
		entries, err := netlink.NeighList(0, netlink.FAMILY_V4)
		for _, n := range entries {
			if n.IP.String() == "10.128.1.1" && n.State == netlink.NUD_PERMANENT && n.HardwareAddr.String() == "02:42:0a:80:01:06" {
				return nil
			}
		}
		t.Errorf("the gateway is not known for good: %v", entries)
		return err
	})
}

// TestBesideTheGateway: on the machine network a container has no link-local address, by which it would reach its neighbours past the
// packet filter, and they it.
func TestBesideTheGateway(t *testing.T) {
	k := machine(t)
	bridge(t, "shoal0", "10.128.1.1/24", "fd00:1::1/64")
	bridge(t, "shoalbr4097")
	a := build(t, k, wiring("a.0", "10.128.1.2/32", "fd00:1::2/128", "10.0.16.2/20"))
	b := build(t, k, wiring("b.0", "10.128.1.3/32", "fd00:1::3/128", "10.0.16.3/20"))
	must(t, reach(t, a.NetNS, b.NetNS, "fd00:1::3")) // its addresses are in force
	inside(t, b.NetNS, func() error {
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		all, err := netlink.AddrList(eth, netlink.FAMILY_V6)
		for _, a := range all {
			if a.IP.IsLinkLocalUnicast() {
				t.Errorf("eth0 has the address %s", a.IPNet)
			}
		}
		return err
	})
}

func eth1(t *testing.T) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName("eth1")
	must(t, err)
	return l
}

// heard says whether a datagram arrives that is sent from an address in one namespace to an address in another.
func heard(t *testing.T, from, source, to, target string) bool {
	t.Helper()
	var pc net.PacketConn
	inside(t, to, func() (err error) { pc, err = net.ListenPacket("udp", net.JoinHostPort(target, "9000")); return err })
	defer pc.Close()
	inside(t, from, func() error {
		// Who is there is known, so that nothing has to be asked first.
		mac := macOf([]netip.Prefix{netip.MustParsePrefix(target + "/32")})
		must(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: eth1(t).Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(target), HardwareAddr: mac}))
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(source)}, pc.LocalAddr().(*net.UDPAddr))
		must(t, err)
		defer c.Close()
		_, err = c.Write([]byte("?"))
		return err
	})
	must(t, pc.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	_, _, err := pc.ReadFrom(make([]byte, 10))
	return err == nil
}
