package tables_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/keys"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
	"github.com/shoalproject/shoal/services/meshproxy/internal/wireguard"
)

// TestMain is the process of a WireGuard device, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == wireguard.Verb {
		os.Exit(wireguard.Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// sealedMachine is one machine with keys.
type sealedMachine struct {
	*host
	node, vtep string
	container  *host
	tables     *tables.Kernel
	ring       *keys.Ring
	devices    wireguard.Devices
	again      func() *keys.Ring // as after a restart
	clock      time.Duration     // how much later it is for its keys
}

// sealedLab is two machines on one wire with an encrypted network and a container of it on each.
type sealedLab struct {
	t        testing.TB
	a, b     *sealedMachine
	model    *mesh.Model
	rotation uint64
	mesh     bool
	plain    *dispatcherv1.MeshNetwork // one in the clear beside it, or nil
	// published is a service with a port, or nil
	published *dispatcherv1.MeshService
}

type noHealth struct{}

func (noHealth) Set(string, bool, string) {}

// newSealedLab uses the kernel's WireGuard, or that in user space.
func newSealedLab(t testing.TB, userSpace bool) *sealedLab {
	t.Helper()
	return newSealedLabAt(t, userSpace, "198.51.100.1/24", "198.51.100.2/24")
}

// newSealedLabAt has the machines at these addresses of the wire.
func newSealedLabAt(t testing.TB, userSpace bool, a, b string) *sealedLab {
	t.Helper()
	lacks := wireguard.Kernel()
	if userSpace {
		lacks = wireguard.Tun()
	}
	if lacks != nil {
		t.Skip(lacks)
	}
	l := &sealedLab{t: t}
	for _, m := range []**sealedMachine{&l.a, &l.b} {
		*m = &sealedMachine{host: newHost(t), container: newHost(t)}
	}
	l.a.node, l.a.vtep, l.b.node, l.b.vtep = "a", netip.MustParsePrefix(a).Addr().String(), "b", netip.MustParsePrefix(b).Addr().String()
	join(l.a.host, "wire", "", l.b.host, "wire", "")
	l.a.do(func() error { return addNoDAD("wire", a) })
	l.b.do(func() error { return addNoDAD("wire", b) })
	for _, m := range []*sealedMachine{l.a, l.b} {
		m.open(t, userSpace)
	}
	l.converge()
	for i, m := range []*sealedMachine{l.a, l.b} {
		attach(m.host, m.container, kernel.Bridge(4097), "shoalv1", "eth1", fmt.Sprintf("10.0.0.%d/24", 5+i), mesh.MAC(addr(fmt.Sprintf("10.0.0.%d", 5+i))))
		mtu(m.container, "eth1", 1370)
	}
	return l
}

func mtu(h *host, name string, bytes int) {
	h.t.Helper()
	h.do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(l, bytes)
	})
}

// open makes the machine's keys. What it starts ends with its links.
func (m *sealedMachine) open(t testing.TB, userSpace bool) {
	m.tables = m.host.tables()
	d := wireguard.Devices{Folder: t.TempDir(), Program: "/proc/self/exe", UserSpace: userSpace}
	m.devices = d
	means := keys.Means{By: typesv1.Dataplane_DATAPLANE_KERNEL}
	if userSpace {
		means.By = typesv1.Dataplane_DATAPLANE_USERSPACE
		m.tables.SealBy(func(name string, mtu int) error { return d.Spawn(t.Context(), name, mtu) })
	}
	env := testx.Env(t)
	env.Now = func() time.Time { return time.Now().Add(m.clock) }
	env.Rand = run.NewRand(uint64(len(m.node)) + uint64(m.node[0]))
	m.again = func() *keys.Ring { return keys.Open(env, "/tunnel.json", means, d, noHealth{}) }
	m.ring = m.again()
	t.Cleanup(func() { m.host.try(func() error { return m.tables.Reset(context.Background()) }) })
}

// tell is what the dispatcher would: the tables with all keys that are told.
func (l *sealedLab) tell() {
	l.t.Helper()
	machine := func(m *sealedMachine, block string) *dispatcherv1.MeshMachine {
		told, _ := m.ring.Told()
		return &dispatcherv1.MeshMachine{NodeId: m.node, Vteps: []string{m.vtep}, Addresses: []string{m.vtep}, Blocks: []string{block}, TunnelKeys: told.GetTunnelKeys()}
	}
	next, err := l.model.Apply(&dispatcherv1.EndpointsResponse{
		Version: &typesv1.Version{Revision: l.model.Version().GetRevision() + 1}, Full: true, DataPort: 8477, MachineNetwork: "10.128.0.0/10",
		Encryption: &typesv1.Encryption{Mesh: l.mesh, KeyRotation: l.rotation},
		Machines:   []*dispatcherv1.MeshMachine{machine(l.a, "10.128.1.0/24"), machine(l.b, "10.128.2.0/24")},
		Networks: []*dispatcherv1.MeshNetwork{{NetworkId: "n", Name: "front", Vni: 4097, Encrypted: true, Entries: []*dispatcherv1.NetworkEntry{
			{TaskId: "t1", NodeId: "a", Addresses: []string{"10.0.0.5"}}, {TaskId: "t2", NodeId: "b", Addresses: []string{"10.0.0.6"}},
		}}},
	})
	if err == nil && l.published != nil {
		next, err = next.Apply(&dispatcherv1.EndpointsResponse{Version: next.Version(), Services: []*dispatcherv1.MeshService{l.published}, LocalTasks: []*dispatcherv1.LocalTask{
			{TaskId: "t2", Addresses: []string{"10.128.2.5"}},
		}})
	}
	if err == nil && l.plain != nil {
		next, err = next.Apply(&dispatcherv1.EndpointsResponse{Version: next.Version(), Networks: []*dispatcherv1.MeshNetwork{l.plain}})
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.model = next
}

func (l *sealedLab) converge() {
	l.t.Helper()
	l.tell()
	for _, m := range []*sealedMachine{l.a, l.b} {
		l.step(m)
	}
}

// step is one turn of a machine's loop.
func (l *sealedLab) step(m *sealedMachine) {
	l.t.Helper()
	if err := l.turn(m); err != nil {
		l.t.Fatal(err)
	}
	if told, _ := m.ring.Told(); strings.Contains(told.GetTunnelReason(), "set up") {
		l.t.Fatal(told.GetTunnelReason())
	}
}

func (l *sealedLab) turn(m *sealedMachine) error {
	return m.try(func() error {
		self := mesh.Self{Node: m.node, Tunnel: addr(m.vtep), MTU: 1500}
		self.Seal = m.ring.Plan(l.model, self)
		self.Numbers = l.model.Number(self, nil)
		published, err := l.model.Publish(self, nil)
		if err != nil {
			return err
		}
		want, err := l.model.Desired(self, published)
		if err != nil {
			return err
		}
		var paths []string
		for path := range want.Settings {
			paths = append(paths, path)
		}
		have, err := m.tables.Read(l.t.Context(), paths)
		if err != nil {
			return err
		}
		if err := m.tables.Apply(l.t.Context(), kernel.Diff(want, have)); err != nil {
			return err
		}
		m.ring.Configure(false)
		if have, err = m.tables.Read(l.t.Context(), paths); err != nil {
			return err
		}
		if left := kernel.Diff(want, have); len(left) > 0 {
			return fmt.Errorf("still to do: %s", left)
		}
		return nil
	})
}

// capture is what passes a machine's wire.
type capture struct {
	mu     sync.Mutex // guards frames
	frames [][]byte
}

func (m *sealedMachine) capture(t testing.TB) *capture {
	t.Helper()
	c, fd := &capture{}, -1
	m.do(func() (err error) {
		all := binary.BigEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
		all = all>>8 | all<<8
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, int(all)); err != nil {
			return err
		}
		wire, err := net.InterfaceByName("wire")
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: wire.Index})
	})
	file := os.NewFile(uintptr(fd), "wire")
	t.Cleanup(func() { file.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, err := file.Read(buf)
			if err != nil {
				return
			}
			c.mu.Lock()
			c.frames = append(c.frames, slices.Clone(buf[:n]))
			c.mu.Unlock()
		}
	}()
	return c
}

// saw waits until a frame has passed: what has been answered was on the wire, but the reader may not have had its turn.
func (c *capture) saw() *capture {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); <-time.After(time.Millisecond) {
		c.mu.Lock()
		n := len(c.frames)
		c.mu.Unlock()
		if n > 0 {
			break
		}
	}
	return c
}

// leaks counts frames with a text in them or to the data port, and all frames.
func (c *capture) leaks(text string) (plain, vxlan, all int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.frames {
		if bytes.Contains(f, []byte(text)) {
			plain++
		}
		// Ethernet 14, IPv4 without options 20, then UDP's ports.
		if len(f) > 38 && f[12] == 8 && f[13] == 0 && f[23] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(f[36:]) == 8477 {
			vxlan++
		}
	}
	return plain, vxlan, len(c.frames)
}

const secret = "nobody on the wire reads this "

// TestSealedNetwork: containers of two machines reach each other, and on the wire there is nothing of it to be read. When WireGuard is
// taken away nothing passes and nothing leaks, and it comes back.
func TestSealedNetwork(t *testing.T) {
	for name, userSpace := range map[string]bool{"kernel": false, "userspace": true} {
		t.Run(name, func(t *testing.T) {
			l := newSealedLab(t, userSpace)
			wire := l.a.capture(t)
			answer(t, l.b.container, "10.0.0.6:8000", secret)
			if got, err := ask(l.a.container, "10.0.0.6:8000"); err != nil || !strings.HasPrefix(got, secret+"10.0.0.5:") {
				t.Fatalf("answered %q, %v", got, err)
			}
			if plain, vxlan, all := wire.saw().leaks(secret); plain+vxlan > 0 || all == 0 {
				t.Errorf("on the wire: %d frames with clear text, %d of the tunnel in the clear, of %d", plain, vxlan, all)
			}
			for _, m := range []*sealedMachine{l.a, l.b} {
				m.do(func() error {
					link, err := netlink.LinkByName("shoal-wg1")
					if err != nil {
						return err
					}
					return netlink.LinkDel(link)
				})
				// As somebody might who wants to help: all that leads anywhere leads to the other machine.
				m.do(func() error {
					via := l.a.vtep
					if m == l.a {
						via = l.b.vtep
					}
					return netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Gw: net.ParseIP(via)})
				})
			}
			if got, err := fails(l.a.container, "10.0.0.6:8000"); err == nil {
				t.Errorf("without WireGuard it answered %q", got)
			}
			if plain, vxlan, _ := wire.leaks(secret); plain+vxlan > 0 {
				t.Errorf("without WireGuard there were on the wire %d frames with clear text and %d of the tunnel", plain, vxlan)
			}
			l.converge()
			if _, err := ask(l.a.container, "10.0.0.6:8000"); err != nil {
				t.Errorf("after the repair: %v", err)
			}
		})
	}
}

func (m *sealedMachine) index(name string) (i int, err error) {
	err = m.try(func() error {
		l, err := netlink.LinkByName(name)
		if err == nil {
			i = l.Attrs().Index
		}
		return err
	})
	return i, err
}

// TestForgedSealedPacket: what looks like the tunnel's frame of an encrypted network is not taken in the clear, even from the address of a
// machine of the cluster and whatever stands beside the network's number. Without our packet filter it would be.
func TestForgedSealedPacket(t *testing.T) {
	l := newSealedLab(t, true)
	heard := make(chan string, 9)
	pc := listenPacket(t, l.a.container, ":8002")
	go func() {
		buf := make([]byte, 100)
		for {
			n, _, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			heard <- string(buf[:n])
		}
	}()
	open := func(m *sealedMachine) {
		m.do(func() error {
			conn, err := nftables.New()
			if err != nil {
				return err
			}
			conn.DelTable(&nftables.Table{Name: "shoal", Family: nftables.TableFamilyINet})
			return conn.Flush()
		})
	}
	send := func(text string) {
		l.b.do(func() error {
			c, err := net.Dial("udp", "198.51.100.1:8477")
			if err != nil {
				return err
			}
			defer c.Close()
			for _, beside := range []byte{0, 1, 0xff} {
				frame := forged("02:42:0a:00:00:05", "10.0.0.6", "10.0.0.5", 8002, text)
				copy(frame[4:], []byte{0x00, 0x10, 0x01, beside})
				if _, err := c.Write(frame); err != nil {
					return err
				}
			}
			return nil
		})
	}
	open(l.b)
	send("in the clear")
	open(l.a)
	send("without a filter")
	if got := <-heard; got != "without a filter" {
		t.Errorf("%q was taken", got)
	}
}

// TestSealedOverIPv6: machines that speak IPv6 to each other carry the same within it, and large packets fit.
func TestSealedOverIPv6(t *testing.T) {
	l := newSealedLabAt(t, true, "2001:db8::1/64", "2001:db8::2/64")
	large := strings.Repeat(secret, 5000)
	answer(t, l.b.container, "10.0.0.6:8000", large)
	if got, err := ask(l.a.container, "10.0.0.6:8000"); err != nil || !strings.HasPrefix(got, large) {
		t.Errorf("answered %d bytes, %v; want %d", len(got), err, len(large))
	}
	for name, want := range map[string]int{"shoal-wg1": 1420, kernel.Bridge(4097): 1370} {
		l.a.do(func() error {
			link, err := netlink.LinkByName(name)
			if err == nil && link.Attrs().MTU != want {
				t.Errorf("%s carries %d bytes, want %d", name, link.Attrs().MTU, want)
			}
			return err
		})
	}
}
