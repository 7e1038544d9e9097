package tables_test

import (
	"context"
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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
)

// world is machines a, b and c and a client on one wire, with containers a1 and a2 on a, b1 on b, and c1 on c. Containers answer on
// 8000, TCP and UDP, with the address of who asks.
type world struct {
	t          testing.TB
	model      *mesh.Model
	client     *host
	machines   map[string]*host
	tables     map[string]*tables.Kernel
	kernel     map[string]kernel.Kernel
	published  map[string]*mesh.Published
	containers map[string]*host
	revision   uint64
	mtu        int // of the wire
	modes          // how the machines carry published ports; see modes_test.go
}

// Addresses: machine a is 198.51.100.1 and 2001:db8::1, b is 2, c is 3; the client is 9.
func wire(n string, is4 bool) string {
	if is4 {
		return "198.51.100." + n
	}
	return "2001:db8::" + n
}

func inside(name string, is4 bool) string {
	n := map[string]string{"a1": "1.5", "a2": "1.6", "b1": "2.5", "c1": "3.5"}[name]
	if is4 {
		return "10.128." + n
	}
	block, end, _ := strings.Cut(n, ".")
	return "fd00:5a1:0:" + block + "::" + end
}

func newWorld(t testing.TB) *world { return newWorldOn(t, 1500) }

// newWorldOn is one on a wire with such an MTU, as that of a cloud's network may be.
func newWorldOn(t testing.TB, mtu int) *world {
	t.Helper()
	w := &world{
		t: t, mtu: mtu, client: newHost(t), machines: map[string]*host{"a": newHost(t), "b": newHost(t), "c": newHost(t)}, tables: map[string]*tables.Kernel{},
		kernel: map[string]kernel.Kernel{}, published: map[string]*mesh.Published{}, containers: map[string]*host{},
	}
	ground := newHost(t)
	ground.do(func() error { return makeBridge("wire") })
	for i, h := range []*host{w.machines["a"], w.machines["b"], w.machines["c"], w.client} {
		n := []string{"1", "2", "3", "9"}[i]
		attach(ground, h, "wire", "port"+n, "eth0", wire(n, true)+"/24", "")
		h.do(func() error { return errors.Join(addNoDAD("eth0", wire(n, false)+"/64"), limit("eth0", mtu)) })
		ground.do(func() error { return limit("port"+n, mtu) })
	}
	for name, h := range w.machines {
		w.tables[name] = h.tables()
	}
	w.tell(&dispatcherv1.EndpointsResponse{
		LocalTasks: localTasks(),
		Full:       true, DataPort: 8477, MachineNetwork: "10.128.0.0/10", Machines: []*dispatcherv1.MeshMachine{machineOf("a", "1"), machineOf("b", "2"), machineOf("c", "3")},
	})
	for _, task := range localTasks() {
		w.container(task.GetTaskId(), task.GetTaskId()[:1])
	}
	return w
}

// localTasks are all containers'. Each machine hears of all, which does no harm.
func localTasks() (out []*dispatcherv1.LocalTask) {
	for _, name := range []string{"a1", "a2", "b1", "c1"} {
		out = append(out, &dispatcherv1.LocalTask{TaskId: name, Addresses: []string{inside(name, true), inside(name, false)}})
	}
	return out
}

func machineOf(name, n string) *dispatcherv1.MeshMachine {
	return &dispatcherv1.MeshMachine{
		NodeId: name, Addresses: []string{wire(n, true)}, Vteps: []string{wire(n, true)}, MeshPort: 2385, OwnAddresses: []string{wire(n, false)},
		Blocks: []string{"10.128." + n + ".0/24", "fd00:5a1:0:" + n + "::/64"},
	}
}

func makeBridge(name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return err
	}
	return up(name)
}

func limit(name string, mtu int) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetMTU(l, mtu)
}

// container does what the agent does, and has the container answer.
func (w *world) container(name, machine string) {
	w.t.Helper()
	c, h := newHost(w.t), w.machines[machine]
	w.containers[name] = c
	four, six := inside(name, true), inside(name, false)
	attach(h, c, kernel.MachineBridge, "shoalv"+name, "eth0", four+"/32", mesh.MAC(addr(four)))
	h.do(func() error {
		l, err := netlink.LinkByName("shoalv" + name)
		if err != nil {
			return err
		}
		return netlink.LinkSetHairpin(l, true)
	})
	c.do(func() error { return limit("eth0", w.mtu-50) })
	gateway := netip.MustParseAddr(four).As4()
	defaultRoute(c, "eth0", fmt.Sprintf("10.128.%d.1", gateway[2]))
	c.do(func() error {
		if err := addNoDAD("eth0", six+"/128"); err != nil {
			return err
		}
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		gw := net.ParseIP(fmt.Sprintf("fd00:5a1:0:%d::1", gateway[2]))
		direct := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: &net.IPNet{IP: gw, Mask: net.CIDRMask(128, 128)}}
		return errors.Join(netlink.RouteAdd(direct), netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: gw}))
	})
	serve(w.t, c, ":8000")
	servePackets(w.t, c, ":8000", name)
}

// tell brings all machines to what follows.
func (w *world) tell(r *dispatcherv1.EndpointsResponse) {
	w.t.Helper()
	w.revision++
	r.Version = &typesv1.Version{Epoch: &typesv1.Epoch{Number: 1}, Revision: w.revision}
	m, err := w.model.Apply(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.model = m
	for name := range w.machines {
		w.bring(name)
	}
}

// bring is what the loop of a machine does: it compares with what it has made, and reads the kernel only at the beginning.
func (w *world) bring(name string) {
	w.t.Helper()
	n := map[string]string{"a": "1", "b": "2", "c": "3"}[name]
	self := mesh.Self{Node: name, Tunnel: addr(wire(n, true)), MTU: w.mtu, Local: []netip.Addr{addr(wire(n, true)), addr(wire(n, false))}}
	w.modes.know(&self)
	self.Numbers = w.model.Number(self, nil)
	p, err := w.model.Publish(self, w.published[name])
	if err != nil {
		w.t.Fatal(err)
	}
	want, err := w.model.Desired(self, p)
	if err != nil {
		w.t.Fatal(err)
	}
	tb := here{w.machines[name], w.tables[name]}
	have, known := w.kernel[name]
	if !known {
		if have, err = tb.Read(w.t.Context(), keysOf(want.Settings)); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := tb.Apply(w.t.Context(), kernel.Diff(want, have)); err != nil {
		w.t.Fatal(err)
	}
	if err := tb.Forget(want.Rules.Networks); err != nil {
		w.t.Fatal(err)
	}
	w.kernel[name], w.published[name] = want, p
	w.modes.apply(w.t, name, p, w.model.Peers(name))
}

func keysOf(m map[string]string) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// publish has tcp and udp 30000, and tcp 30001, lead to these containers.
func (w *world) publish(containers ...string) {
	w.t.Helper()
	w.tell(&dispatcherv1.EndpointsResponse{Services: []*dispatcherv1.MeshService{serviceOf(containers...)}})
}

func serviceOf(containers ...string) *dispatcherv1.MeshService {
	s := &dispatcherv1.MeshService{ServiceId: "web", Name: "web", Ports: []*typesv1.PortConfig{
		{PublishedPort: 30000, TargetPort: 8000}, {PublishedPort: 30000, TargetPort: 8000, Protocol: typesv1.Protocol_PROTOCOL_UDP},
		{PublishedPort: 30001, TargetPort: 8001},
	}}
	for i, c := range containers {
		s.Endpoints = append(s.Endpoints, &dispatcherv1.MeshEndpoint{
			TaskId: c, NodeId: c[:1], Slot: uint64(i), Addresses: []string{inside(c, true), inside(c, false)},
		})
	}
	return s
}

// asks has a host ask by a network, and returns the caller's address that the container saw, without its port.
func asks(h *host, network, address string) (string, error) {
	var got string
	var err error
	if network == "udp" {
		got, err = askPacket(h, address, "")
		_, got, _ = strings.Cut(got, " ")
	} else {
		got, err = askWithin(h, address, 4*time.Second)
	}
	if err != nil {
		return "", err
	}
	at, err := netip.ParseAddrPort(got)
	return at.Addr().Unmap().String(), err
}

func gatewayOf(machine string, is4 bool) string {
	n := map[string]string{"a": "1", "b": "2", "c": "3"}[machine]
	if is4 {
		return "10.128." + n + ".1"
	}
	return "fd00:5a1:0:" + n + "::1"
}

// TestMachineWhoseTaskIsBehindAnother: the machine asks another one, which leads it back to a task of its own. It does so by an address
// that it does not advertise as well.
func TestMachineWhoseTaskIsBehindAnother(t *testing.T) {
	w := newWorld(t)
	w.publish("b1")
	for _, network := range []string{"tcp", "udp"} {
		for _, is4 := range []bool{true, false} {
			if got, err := asks(w.machines["b"], network, net.JoinHostPort(wire("1", is4), "30000")); got != gatewayOf("a", is4) || err != nil {
				t.Fatalf("%s, IPv4 %t: the task saw %q, %v; want machine a's gateway", network, is4, got, err)
			}
		}
	}
}

// TestTwoWaysInWithOneClientPort: a client that uses one port towards two machines has two connections that live.
func TestTwoWaysInWithOneClientPort(t *testing.T) {
	w := newWorld(t)
	for i, task := range []string{"a1", "c1"} { // on one of the two machines, and on a third
		from := fmt.Sprintf("198.51.100.9:%d", 40000+i)
		t.Run(task, func(t *testing.T) {
			w.publish(task)
			talk := startTalker(t, w.containers[task])
			defer talk.Close()
			var conns []net.Conn
			for _, n := range []string{"1", "2"} {
				c, err := dialFrom(w.client, from, "198.51.100."+n+":30001")
				if err != nil {
					t.Fatalf("by machine %s: %v", n, err)
				}
				defer c.Close()
				conns = append(conns, c)
			}
			for round := range 3 {
				for i, c := range conns {
					if got, err := say(c, "x\n"); err != nil || !strings.HasPrefix(got, "198.51.100.9:") {
						t.Errorf("round %d, connection %d: %q, %v; want the client's address", round, i+1, got, err)
					}
				}
			}
		})
	}
}

// TestUDPClientFollowsTheTasks: a client with one port is led to another task as soon as its own has gone.
func TestUDPClientFollowsTheTasks(t *testing.T) {
	w := newWorld(t)
	w.publish("b1")
	from := "198.51.100.9:41000"
	for _, step := range []struct{ tasks, want string }{{"b1", "b1"}, {"a1", "a1"}, {"a2", "a2"}, {"b1", "b1"}} {
		w.publish(step.tasks)
		got, err := askPacket(w.client, "198.51.100.1:30000", from)
		if name, _, _ := strings.Cut(got, " "); name != step.want || err != nil {
			t.Errorf("tasks %s: %q answered, %v", step.tasks, got, err)
		}
	}
}

// TestConnectionsLastWhileTheirTaskDrains, and are reset when it has gone: a client is not left in silence.
func TestConnectionsLastWhileTheirTaskDrains(t *testing.T) {
	w := newWorld(t)
	talk := startTalker(t, w.containers["b1"])
	defer talk.Close()
	service := func(draining, gone bool) {
		s := serviceOf("b1", "a1")
		s.Endpoints[0].Draining = draining
		if gone {
			s.Endpoints = s.Endpoints[1:]
		}
		w.tell(&dispatcherv1.EndpointsResponse{Services: []*dispatcherv1.MeshService{s}})
	}
	service(false, false)
	var c net.Conn
	for range 2 { // one of the two tasks does not listen
		var err error
		if c, err = dialFrom(w.client, "198.51.100.9:0", "198.51.100.1:30001"); err == nil {
			break
		}
	}
	if c == nil {
		t.Fatal("no connection to either of two tasks")
	}
	defer c.Close()
	service(true, false)
	if got, err := say(c, "x\n"); err != nil {
		t.Fatalf("while the task drains: %q, %v", got, err)
	}
	service(true, true)
	if got, err := say(c, "x\n"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the task has gone: %q, %v; want a reset", got, err)
	}
}

// TestTasksTakeTurns: each of three gets its third.
func TestTasksTakeTurns(t *testing.T) {
	w := newWorld(t)
	w.publish("a1", "a2", "b1")
	by := map[string]int{}
	for i := range 60 {
		got, err := askPacket(w.client, "198.51.100.1:30000", fmt.Sprintf("198.51.100.9:%d", 42000+i))
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(got, " ")
		by[name]++
	}
	for _, name := range []string{"a1", "a2", "b1"} {
		if by[name] != 20 {
			t.Errorf("turns %v, want 20 each", by)
		}
	}
}

// TestTunnelCarriesPublishedPortsAlone: what was not led there by a published port is refused on the machine that sends it.
func TestTunnelCarriesPublishedPortsAlone(t *testing.T) {
	w := newWorld(t)
	w.publish("b1")
	for who, h := range map[string]*host{"a container": w.containers["a1"], "the machine": w.machines["a"]} {
		if got, err := fails(h, "10.128.2.5:8000"); err == nil {
			t.Errorf("%s of a reached a container of b past its ports: %q", who, got)
		}
	}
	route(w.client, "10.128.2.0/24", "198.51.100.1")
	if got, err := fails(w.client, "10.128.2.5:8000"); err == nil {
		t.Errorf("a client reached a container of b through a as a router: %q", got)
	}
}

// TestForgedTunnelPacket: a container that sends what looks like a tunnel's frame to a peer reaches nobody.
func TestForgedTunnelPacket(t *testing.T) {
	w := newWorld(t)
	w.publish("b1")
	heard := make(chan string, 3)
	pc := listenPacket(t, w.containers["b1"], ":8002")
	go func() {
		for {
			buf := make([]byte, 100)
			n, _, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			heard <- string(buf[:n])
		}
	}()
	send := func(h *host, text string) {
		h.do(func() error {
			c, err := net.Dial("udp", "198.51.100.2:8477")
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write(forged("02:43:c6:33:64:02", "10.128.1.5", "10.128.2.5", 8002, text))
			return err
		})
	}
	send(w.machines["a"], "warm") // the way is known from here on
	if got := <-heard; got != "warm" {
		t.Fatalf("the peer's frame was not taken: %q", got)
	}
	send(w.containers["a1"], "forged")
	send(w.machines["a"], "good")
	if got := <-heard; got != "good" {
		t.Errorf("the container's frame came out of the tunnel: %q", got)
	}
}

// forged is a VXLAN frame of the machine network with a datagram in it (RFC 7348).
func forged(to, from, at string, port uint16, text string) []byte {
	mac, _ := net.ParseMAC(to)
	payload := []byte(text)
	udp := []byte{0x99, 0x99, byte(port >> 8), byte(port), 0, byte(8 + len(payload)), 0, 0}
	udp = append(udp, payload...)
	src, dst := netip.MustParseAddr(from).As4(), netip.MustParseAddr(at).As4()
	ip := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 0, 0, 0, 64, 17, 0, 0}
	ip = append(append(ip, src[:]...), dst[:]...)
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	sum = sum>>16 + sum&0xffff
	ip[10], ip[11] = ^byte(sum>>8), ^byte(sum)
	frame := append([]byte{8, 0, 0, 0, 0, 0x0f, 0xff, 0}, mac...)
	frame = append(frame, 2, 0x43, 0xc6, 0x33, 0x64, 1, 8, 0)
	return append(append(frame, ip...), udp...)
}

// startTalker answers each line of a connection with the caller's address, on port 8001.
func startTalker(t testing.TB, h *host) net.Listener {
	t.Helper()
	var ln net.Listener
	h.do(func() (err error) {
		ln, err = net.Listen("tcp", ":8001")
		return err
	})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 10)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
					at, _ := netip.ParseAddrPort(c.RemoteAddr().String())
					fmt.Fprintf(c, "%s\n", netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
				}
			}()
		}
	}()
	return ln
}

func say(c net.Conn, line string) (string, error) {
	c.SetDeadline(time.Now().Add(4 * time.Second))
	if _, err := io.WriteString(c, line); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func dialFrom(h *host, from, to string) (c net.Conn, err error) {
	d := net.Dialer{
		Timeout: 4 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)),
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }), err)
		},
	}
	return c, h.try(func() error {
		c, err = d.DialContext(context.Background(), "tcp", to)
		return err
	})
}

func listenPacket(t testing.TB, h *host, address string) (pc net.PacketConn) {
	t.Helper()
	h.do(func() (err error) {
		pc, err = net.ListenPacket("udp", address)
		return err
	})
	t.Cleanup(func() { pc.Close() })
	return pc
}

// servePackets answers each datagram with its name and the caller's address.
func servePackets(t testing.TB, h *host, address, name string) {
	t.Helper()
	pc := listenPacket(t, h, address)
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo([]byte(name+" "+from.String()), from)
		}
	}()
}

func askPacket(h *host, address, from string) (answer string, err error) {
	err = h.try(func() error {
		var d net.Dialer
		if from != "" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))
		}
		c, err := d.Dial("udp", address)
		if err != nil {
			return err
		}
		defer c.Close()
		buf := make([]byte, 100)
		for range 4 { // a first packet may be lost while a fresh link comes up
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
			c.SetReadDeadline(time.Now().Add(time.Second))
			n, err := c.Read(buf)
			if answer = string(buf[:n]); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
		}
		return os.ErrDeadlineExceeded
	})
	return answer, err
}

// TestConnectionsOfBeforeTheStart: what was led to a task that has gone while no meshproxy ran is forgotten by the next one; what
// goes to a task that runs, and what was never led anywhere, stays.
func TestConnectionsOfBeforeTheStart(t *testing.T) {
	w := newWorld(t)
	w.publish("b1")
	talk := startTalker(t, w.containers["a1"])
	defer talk.Close()
	old, err := askPacket(w.client, "198.51.100.1:30000", "198.51.100.9:41000")
	if name, _, _ := strings.Cut(old, " "); name != "b1" || err != nil {
		t.Fatalf("%q answered, %v", old, err)
	}
	// The same machines, and other processes that have never heard of b1.
	for name, h := range w.machines {
		w.tables[name] = h.tables()
	}
	w.kernel, w.published = map[string]kernel.Kernel{}, map[string]*mesh.Published{}
	w.publish("a1")
	stays, err := dialFrom(w.client, "198.51.100.9:0", "198.51.100.1:30001")
	if err != nil {
		t.Fatal(err)
	}
	defer stays.Close()
	got, err := askPacket(w.client, "198.51.100.1:30000", "198.51.100.9:41000")
	if name, _, _ := strings.Cut(got, " "); name != "a1" || err != nil {
		t.Errorf("%q answered, %v; want the task that runs", got, err)
	}
	w.tables["a"] = w.machines["a"].tables()
	delete(w.kernel, "a")
	w.publish("a1")
	if got, err := say(stays, "x\n"); err != nil {
		t.Errorf("a connection to a task that runs hears %q, %v after the next start", got, err)
	}
}
