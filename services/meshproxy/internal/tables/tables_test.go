package tables_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables/tablestest"
)

func TestConformance(t *testing.T) {
	h := newHost(t)
	k := h.tables()
	tablestest.Conformance(t, here{h, k}, mesh.Self{Node: tablestest.Self, Tunnel: addr("198.51.100.1"), MTU: 1500})
}

// lab is two machines on one wire, each with the tables of the same model, and one container on each.
type lab struct {
	model            *mesh.Model
	a, b, ca, cb     *host
	tablesA, tablesB *tables.Kernel
}

func newLab(t *testing.T) *lab {
	l := &lab{a: newHost(t), b: newHost(t), ca: newHost(t), cb: newHost(t)}
	join(l.a, "wire", "198.51.100.1/24", l.b, "wire", "198.51.100.2/24")
	l.tablesA, l.tablesB = l.a.tables(), l.b.tables()
	m, err := (*mesh.Model)(nil).Apply(&dispatcherv1.EndpointsResponse{
		Version: &typesv1.Version{Revision: 1}, Full: true, DataPort: 8477, MachineNetwork: "10.128.0.0/10",
		Machines: []*dispatcherv1.MeshMachine{
			{NodeId: "a", Vteps: []string{"198.51.100.1"}, Blocks: []string{"10.128.1.0/24"}},
			{NodeId: "b", Vteps: []string{"198.51.100.2"}, Blocks: []string{"10.128.2.0/24"}},
		},
		LocalTasks: []*dispatcherv1.LocalTask{
			{TaskId: "t1", Addresses: []string{"10.128.1.5"}}, {TaskId: "t2", Addresses: []string{"10.128.2.5"}},
			{TaskId: "t3", Addresses: []string{"10.128.1.6"}}, // made by the test that needs it
		},
		Networks: []*dispatcherv1.MeshNetwork{{
			NetworkId: "n", Name: "front", Vni: 4097,
			Entries: []*dispatcherv1.NetworkEntry{
				{TaskId: "t1", NodeId: "a", Addresses: []string{"10.0.0.5", "fd00:5a1::5"}},
				{TaskId: "t2", NodeId: "b", Addresses: []string{"10.0.0.6", "fd00:5a1::6"}},
			},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	l.model = m
	l.converge(t)
	for _, c := range []struct {
		h, c        *host
		own, tail   string
		overlay, v6 string
	}{{l.a, l.ca, "10.128.1.5", "1", "10.0.0.5", "fd00:5a1::5/64"}, {l.b, l.cb, "10.128.2.5", "2", "10.0.0.6", "fd00:5a1::6/64"}} {
		attach(c.h, c.c, kernel.MachineBridge, "shoalv0", "eth0", c.own+"/32", mesh.MAC(addr(c.own)))
		defaultRoute(c.c, "eth0", "10.128."+c.tail+".1")
		attach(c.h, c.c, kernel.Bridge(4097), "shoalv1", "eth1", c.overlay+"/24", mesh.MAC(addr(c.overlay)))
		c.c.do(func() error { return addNoDAD("eth1", c.v6) })
	}
	return l
}

func (l *lab) converge(t *testing.T) []kernel.Change {
	t.Helper()
	changes := tablestest.Converge(t, here{l.a, l.tablesA}, l.model, mesh.Self{Node: "a", Tunnel: addr("198.51.100.1"), MTU: 1500})
	return append(changes, tablestest.Converge(t, here{l.b, l.tablesB}, l.model, mesh.Self{Node: "b", Tunnel: addr("198.51.100.2"), MTU: 1500})...)
}

func TestOverlayReachesAcrossMachines(t *testing.T) {
	l := newLab(t)
	if changes := l.converge(t); len(changes) > 0 {
		t.Errorf("attaching containers has changed what is ours: %s", changes)
	}
	serve(t, l.cb, "10.0.0.6:8000")
	serve(t, l.cb, "[fd00:5a1::6]:8000")
	if got, err := ask(l.ca, "10.0.0.6:8000"); err != nil || !strings.HasPrefix(got, "10.0.0.5:") {
		t.Errorf("over IPv4: answered %q, %v; want the container's own address", got, err)
	}
	if got, err := ask(l.ca, "[fd00:5a1::6]:8000"); err != nil || !strings.HasPrefix(got, "[fd00:5a1::5]:") {
		t.Errorf("over IPv6: answered %q, %v; want the container's own address", got, err)
	}
	l.ca.do(func() error { // nothing was asked of the wire: the neighbour was answered from the table
		entries, err := netlink.NeighList(0, netlink.FAMILY_V4)
		for _, n := range entries {
			if n.IP.String() == "10.0.0.6" && n.HardwareAddr.String() != "02:42:0a:00:00:06" {
				return fmt.Errorf("neighbour is %s", n.HardwareAddr)
			}
		}
		return err
	})
	// An address that no task has is not looked for on the wire.
	if got, err := fails(l.ca, "10.0.0.99:8000"); err == nil {
		t.Errorf("an address that nobody has answered %q", got)
	}
}

func TestMachineNetwork(t *testing.T) {
	l := newLab(t)
	serve(t, l.b, "198.51.100.2:8000")
	if got, err := ask(l.ca, "198.51.100.2:8000"); err != nil || !strings.HasPrefix(got, "198.51.100.1:") {
		t.Errorf("egress: answered %q, %v; want the machine's address", got, err)
	}

	neighbour := newHost(t)
	attach(l.a, neighbour, kernel.MachineBridge, "shoalv2", "eth0", "10.128.1.6/32", "02:42:0a:80:01:06")
	defaultRoute(neighbour, "eth0", "10.128.1.1")
	serve(t, neighbour, "10.128.1.6:8000")
	if got, err := ask(l.ca, "10.128.1.6:8000"); err != nil || !strings.HasPrefix(got, "10.128.1.5:") {
		t.Errorf("container beside it: answered %q, %v; want the container's own address", got, err)
	}
	if got, err := ask(l.a, "10.128.1.6:8000"); err != nil || !strings.HasPrefix(got, "10.128.1.1:") {
		t.Errorf("from the machine: answered %q, %v; want the gateway's address", got, err)
	}
	serve(t, l.cb, "10.128.2.5:8000")
	route(l.a, "10.128.2.0/25", "198.51.100.2") // even if somebody has made another way
	if got, err := ask(l.ca, "10.128.2.5:8000"); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("a container of another machine: %q, %v on the machine network; want to be told at once that it is forbidden", got, err)
	}
	if got, err := fails(l.a, "10.128.2.5:8000"); err == nil {
		t.Errorf("a container answered %q to another machine, past its machine", got)
	}
	serve(t, l.a, "10.128.1.1:2385")
	if got, err := fails(l.ca, "10.128.1.1:2385"); err == nil {
		t.Errorf("our own port answered a container: %q", got)
	}
}

// TestStrangersStayOut sends what looks like a tunnel's packet to the data port, where a socket stands in for the device.
func TestStrangersStayOut(t *testing.T) {
	l := newLab(t)
	rules := func(peers ...string) {
		t.Helper()
		m, err := l.model.Apply(&dispatcherv1.EndpointsResponse{
			Version: &typesv1.Version{Revision: l.model.Version().GetRevision() + 1}, DataPort: 9000, // free for a socket
			RemovedNetworks: []string{"n"}, Machines: []*dispatcherv1.MeshMachine{{NodeId: "b", Vteps: peers}},
		})
		if err != nil {
			t.Fatal(err)
		}
		l.model = m
		tablestest.Converge(t, here{l.a, l.tablesA}, m, mesh.Self{Node: "a", Tunnel: addr("198.51.100.1"), MTU: 1500})
		l.a.do(func() error {
			return netlink.LinkDel(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: kernel.MachineTunnel}})
		})
	}
	rules("198.51.100.2")
	if !hears(t, l.a, l.b, "198.51.100.1:9000") {
		t.Error("a peer's packet was not taken")
	}
	if hears(t, l.a, l.ca, "198.51.100.1:9000") {
		t.Error("a container's packet was taken")
	}
	if hears(t, l.b, l.ca, "198.51.100.2:9000") {
		t.Error("a container's packet was sent on to a peer")
	}
	l.ca.do(func() error { return configure("lo", "198.51.100.2/32", "") })
	if hears(t, l.a, l.ca, "198.51.100.1:9000", "198.51.100.2:0") {
		t.Error("a container's packet with a peer's address was taken")
	}
	rules()
	if hears(t, l.a, l.b, "198.51.100.1:9000") {
		t.Error("a stranger's packet was taken")
	}
}

// A machine that was told to do without IPv6 has it on our bridge, and nowhere else: containers are on both.
func TestIPv6SwitchedOff(t *testing.T) {
	h := newHost(t)
	const conf = "/proc/sys/net/ipv6/conf/"
	for _, name := range []string{"all", "default"} {
		h.do(func() error { return os.WriteFile(conf+name+"/disable_ipv6", []byte("1"), 0) })
	}
	m, err := (*mesh.Model)(nil).Apply(&dispatcherv1.EndpointsResponse{
		Version: &typesv1.Version{Revision: 1}, Full: true, DataPort: 8477, MachineNetwork: "10.128.0.0/10",
		Machines: []*dispatcherv1.MeshMachine{{NodeId: "a", Vteps: []string{"198.51.100.1"}, Blocks: []string{"10.128.1.0/24", "fd00:5a1:0:1::/64"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	tablestest.Converge(t, here{h, h.tables()}, m, mesh.Self{Node: "a", Tunnel: addr("198.51.100.1"), MTU: 1500})
	h.do(func() error {
		all, err := os.ReadFile(conf + "all/disable_ipv6")
		ours, ourErr := os.ReadFile(conf + kernel.MachineBridge + "/disable_ipv6")
		if string(all) != "1\n" || string(ours) != "0\n" {
			t.Errorf("disable_ipv6 is %q on the machine and %q on our bridge, want 1 and 0", all, ours)
		}
		return errors.Join(err, ourErr)
	})
}

// TestRepair: what somebody else takes away comes back, and nothing else is touched.
func TestRepair(t *testing.T) {
	l := newLab(t)
	l.a.do(func() error {
		vx, err := netlink.LinkByName(kernel.Tunnel(4097))
		if err != nil {
			return err
		}
		mac, _ := net.ParseMAC("02:42:0a:00:00:06")
		if err := netlink.NeighDel(&netlink.Neigh{
			LinkIndex: vx.Attrs().Index, Family: syscall.AF_BRIDGE, Flags: netlink.NTF_MASTER, HardwareAddr: mac,
		}); err != nil {
			return err
		}
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Name: "shoal", Family: nftables.TableFamilyINet}
		conn.FlushChain(&nftables.Chain{Name: "forward", Table: table})
		conn.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: "SHOAL-USER", Table: table}})
		return conn.Flush()
	})
	bridge := index(t, l.a, kernel.Bridge(4097))
	l.converge(t)
	if now := index(t, l.a, kernel.Bridge(4097)); now != bridge {
		t.Errorf("the bridge was made again: index %d, was %d", now, bridge)
	}
	l.a.do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Name: "shoal", Family: nftables.TableFamilyINet}
		rules, err := conn.GetRules(table, &nftables.Chain{Name: "SHOAL-USER", Table: table})
		if err == nil && len(rules) != 1 {
			err = fmt.Errorf("SHOAL-USER has %d rules, want the administrator's 1", len(rules))
		}
		return err
	})
	serve(t, l.cb, "10.0.0.6:8000")
	if _, err := ask(l.ca, "10.0.0.6:8000"); err != nil {
		t.Errorf("after the repair: %v", err)
	}
}

// TestTablesOfAnEarlierVersion may lack a set whose elements come before the rules that look into it: it is made.
func TestTablesOfAnEarlierVersion(t *testing.T) {
	l := newLab(t)
	l.a.do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Name: "shoal", Family: nftables.TableFamilyINet}
		conn.FlushChain(&nftables.Chain{Name: "dialled", Table: table})
		conn.DelSet(&nftables.Set{Name: "listened4", Table: table})
		return conn.Flush()
	})
	slot := kernel.Slot{Set: "listened4", Key: "tcp 30000"}
	announced := kernel.Change{Verb: kernel.Add, Entry: &kernel.Entry{Slot: slot}}
	if err := (here{l.a, l.tablesA}).Apply(t.Context(), []kernel.Change{announced}); err != nil {
		t.Fatal(err)
	}
	if k, err := (here{l.a, l.tablesA}).Read(t.Context(), nil); err != nil || !k.Has(slot) {
		t.Errorf("it is not there: %v", err)
	}
	l.converge(t)
}

func TestResetLeavesNothingOfOursAndAllElse(t *testing.T) {
	l := newLab(t)
	l.a.do(func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "shoaling"}}); err != nil {
			return err
		}
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		conn.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
		return conn.Flush()
	})
	l.a.do(func() error { return l.tablesA.Reset(t.Context()) })
	l.a.do(func() error { // a second time finds nothing, and that is right
		if err := l.tablesA.Reset(t.Context()); err != nil {
			return err
		}
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		var names []string
		for _, link := range links {
			names = append(names, link.Attrs().Name)
		}
		if got := strings.Join(names, " "); strings.Contains(got, "shoal0") || strings.Contains(got, "shoalbr") ||
			strings.Contains(got, "shoalv") || !strings.Contains(got, "wire") || !strings.Contains(got, "shoaling") {
			return fmt.Errorf("links left: %s", got)
		}
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		all, err := conn.ListTables()
		if err == nil && (len(all) != 1 || all[0].Name != "filter") {
			err = fmt.Errorf("%d nftables tables left, want the other one's 1", len(all))
		}
		return err
	})
}

func TestHolderNamesTheProcess(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	if got := (&tables.Kernel{}).Holder(mesh.Listener{Network: "tcp", Port: uint16(port)}); !strings.Contains(got, "tables.test") {
		t.Errorf("holder is %q, want this test", got)
	}
}

func index(t *testing.T, h *host, name string) (i int) {
	t.Helper()
	h.do(func() error {
		l, err := netlink.LinkByName(name)
		if err == nil {
			i = l.Attrs().Index
		}
		return err
	})
	return i
}

func addNoDAD(name, cidr string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	a.Flags = syscall.IFA_F_NODAD
	return netlink.AddrAdd(l, a)
}

// serve answers each connection with the caller's address, until the test ends.
func serve(t testing.TB, h *host, address string) {
	t.Helper()
	answer(t, h, address, "")
}

// answer does so with a word before it.
func answer(t testing.TB, h *host, address, word string) {
	t.Helper()
	var ln net.Listener
	h.do(func() (err error) {
		ln, err = net.Listen("tcp", address)
		return err
	})
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, word+c.RemoteAddr().String())
			c.Close()
		}
	}()
}

// ask waits for long enough that a first packet may be lost while a fresh link comes up; fails is for what must not answer.
func ask(h *host, address string) (string, error) { return askWithin(h, address, 4*time.Second) }
func fails(h *host, address string) (string, error) {
	return askWithin(h, address, 500*time.Millisecond)
}

func askWithin(h *host, address string, limit time.Duration) (answer string, err error) {
	err = h.try(func() error {
		c, err := net.DialTimeout("tcp", address, limit)
		if err != nil {
			return err
		}
		defer c.Close()
		data, err := io.ReadAll(c)
		answer = string(data)
		return err
	})
	return answer, err
}

// hears says whether a datagram from one host reaches an address of another.
func hears(t *testing.T, to, from *host, address string, source ...string) bool {
	t.Helper()
	var pc net.PacketConn
	to.do(func() (err error) {
		pc, err = net.ListenPacket("udp", netip.MustParseAddrPort(address).String())
		return err
	})
	defer pc.Close()
	if err := from.try(func() error {
		var d net.Dialer
		for _, s := range source {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(s))
		}
		c, err := d.Dial("udp", address)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	}); err != nil && !errors.Is(err, syscall.EPERM) {
		t.Fatal(err)
	}
	pc.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	_, _, err := pc.ReadFrom(make([]byte, 10))
	return err == nil
}

// TestKernelThatLacksTheMesh has the guard and the networks all the same.
func TestKernelThatLacksTheMesh(t *testing.T) {
	h := newHost(t)
	tablestest.Conformance(t, here{h, h.tables()}, mesh.Self{Node: tablestest.Self, Tunnel: addr("198.51.100.1"), MTU: 1500, UserSpace: true})
}
