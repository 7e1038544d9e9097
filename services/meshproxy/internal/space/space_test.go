package space_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/space"
)

// rig is a container (10.0.0.10) and three others on one network, whose answers tell which one it is.
type rig struct {
	t        testing.TB
	client   *room
	others   []*room
	spaces   *space.Spaces
	revision uint64
	ready    int
	among    int // other services
	counted  bool
	last     *mesh.Model
	port     int // of the last UDP client
}

func newRig(t testing.TB) *rig {
	hub := newRoom(t)
	r := &rig{t: t, client: newRoom(t), spaces: space.New(testx.Env(t), 100)}
	hub.do(func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}); err != nil {
			return err
		}
		br, err := netlink.LinkByName("br")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(br)
	})
	r.plug(hub, r.client, 10)
	for i := range 3 {
		o := newRoom(t)
		r.plug(hub, o, 11+i)
		r.others = append(r.others, o)
		r.serve(o, 11+i)
	}
	r.serve(r.client, 10)
	hub.do(func() error { return carry("v10", "v11", "v12", "v13") })
	for _, o := range append(r.others, r.client) {
		o.do(func() error { return carry("eth1") })
	}
	r.take()
	t.Cleanup(func() { r.spaces.Drop("client.0") })
	return r
}

// take hands the client's namespace over.
func (r *rig) take() {
	var socket *os.File
	r.client.do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		}
		socket = os.NewFile(uintptr(fd), "client")
		return err
	})
	r.spaces.Take("client.0", socket, func() { r.ready++ })
}

func (r *rig) plug(hub, to *room, last int) {
	r.t.Helper()
	hub.do(func() error {
		br, err := netlink.LinkByName("br")
		if err != nil {
			return err
		}
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprint("v", last), MasterIndex: br.Attrs().Index, Flags: net.FlagUp},
			PeerName:  "eth1", PeerNamespace: netlink.NsFd(to.ns),
		})
	})
	to.do(func() error {
		eth, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		for _, a := range []string{fmt.Sprintf("10.0.0.%d/24", last), fmt.Sprintf("fd01::%d/64", last)} {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			addr.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(eth, addr); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(eth)
	})
}

// serve answers TCP and UDP on port 80 with a number, and keeps TCP connections open as echoes.
func (r *rig) serve(o *room, number int) {
	o.do(func() error {
		l, err := net.Listen("tcp", ":80")
		if err != nil {
			return err
		}
		pc, err := net.ListenPacket("udp", ":80")
		if err != nil {
			return err
		}
		r.t.Cleanup(func() { l.Close(); pc.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, number)
				go func() { io.Copy(c, c); c.Close() }()
			}
		}()
		go func() {
			buf := make([]byte, 100)
			for {
				_, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				fmt.Fprintf(writerTo{pc, from}, "%d\n", number)
			}
		}()
		return nil
	})
}

type writerTo struct {
	pc net.PacketConn
	to net.Addr
}

func (w writerTo) Write(p []byte) (int, error) { return w.pc.WriteTo(p, w.to) }

// tell puts web behind 10.0.0.2 and fd01::2 with these tasks; entries are who exists.
func (r *rig) tell(entries, ready []int) *mesh.Model {
	r.t.Helper()
	m := r.model(entries, ready)
	if err := r.spaces.Apply(r.t.Context(), m); err != nil {
		r.t.Fatal(err)
	}
	if err := r.spaces.Forget(); err != nil {
		r.t.Fatal(err)
	}
	return m
}

// model has web among other services.
func (r *rig) model(entries, ready []int) *mesh.Model {
	r.t.Helper()
	r.revision++
	resp := &dispatcherv1.EndpointsResponse{Version: &typesv1.Version{Revision: r.revision}, Full: r.last == nil}
	if resp.GetFull() {
		resp.LocalTasks = []*dispatcherv1.LocalTask{{TaskId: "client", NetworkIds: []string{"n"}}}
		for i := range r.among {
			resp.NetworkServices = append(resp.NetworkServices, &dispatcherv1.NetworkService{
				NetworkId: "n", ServiceId: fmt.Sprint("other", i), Name: fmt.Sprint("other", i), Vips: []string{fmt.Sprintf("10.0.%d.%d", 1+i/250, i%250)},
				Endpoints: []*dispatcherv1.NetworkEndpoint{{TaskId: fmt.Sprint("o", i), Slot: 1, Addresses: []string{"10.1.0.1"}}},
			})
		}
	}
	n := &dispatcherv1.MeshNetwork{NetworkId: "n", Name: "n"}
	for _, e := range entries {
		n.Entries = append(n.Entries, &dispatcherv1.NetworkEntry{TaskId: fmt.Sprint("t", e), Addresses: both(e)})
	}
	web := &dispatcherv1.NetworkService{NetworkId: "n", ServiceId: "s", Name: "web", Vips: []string{"10.0.0.2", "fd01::2"}, Counted: r.counted}
	for _, e := range ready {
		web.Endpoints = append(web.Endpoints, &dispatcherv1.NetworkEndpoint{TaskId: fmt.Sprint("t", e), Slot: uint64(e), Addresses: both(e)})
	}
	resp.Networks, resp.NetworkServices = []*dispatcherv1.MeshNetwork{n}, append(resp.NetworkServices, web)
	m, err := r.last.Apply(resp)
	if err != nil {
		r.t.Fatal(err)
	}
	r.last = m
	return m
}

func both(e int) []string { return []string{fmt.Sprintf("10.0.0.%d", e), fmt.Sprintf("fd01::%d", e)} }

// dial connects from the container, from a port if that is not 0.
func (r *rig) dial(network, address string, from int) (c net.Conn, err error) {
	r.client.do(func() error {
		d := net.Dialer{Timeout: 2 * time.Second}
		if from != 0 {
			d.LocalAddr = &net.UDPAddr{Port: from}
		}
		c, err = d.DialContext(r.t.Context(), network, address)
		return nil
	})
	return c, err
}

// udpClients is below the ports that the kernel gives out itself.
const udpClients = 20000

// who answers, and how often. Each time it is another client.
func (r *rig) who(network, address string, n int) map[string]int {
	r.t.Helper()
	came := map[string]int{}
	for range n {
		from := 0
		if network == "udp" { // a port that comes again within the kernel's memory is led where it was, and takes no turn
			r.port++
			from = udpClients + r.port
		}
		c, err := r.dial(network, address, from)
		if err != nil {
			came[reason(err)]++
			continue
		}
		came[hear(c)]++
		c.Close()
	}
	return came
}

func hear(c net.Conn) string { return hearWithin(2*time.Second, c) }

func hearWithin(patience time.Duration, c net.Conn) string {
	if _, ok := c.(*net.UDPConn); ok {
		fmt.Fprintln(c, "hello")
	}
	c.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		return reason(err)
	}
	return strings.TrimSpace(string(buf[:n]))
}

func reason(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	}
	return err.Error()
}

func (r *rig) expect(got map[string]int, want string) {
	r.t.Helper()
	if fmt.Sprint(got) != "map["+want+"]" {
		r.t.Errorf("answers %v, want %s", got, want)
	}
}

// Ready tasks take turns behind the address, by TCP and UDP, IPv4 and IPv6; the container itself is one of them.
func TestTurns(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11, 12, 13}, []int{11, 12, 13})
	if r.ready != 1 {
		t.Errorf("told %d times that the tables are in force, want once", r.ready)
	}
	for _, at := range []string{"10.0.0.2:80", "[fd01::2]:80"} {
		r.expect(r.who("tcp", at, 30), "11:10 12:10 13:10")
		r.expect(r.who("udp", at, 30), "11:10 12:10 13:10")
	}
	r.tell([]int{10, 11, 12, 13}, []int{10, 12})
	r.expect(r.who("tcp", "10.0.0.2:80", 10), "10:5 12:5")
	r.tell([]int{10, 11, 12, 13}, []int{10})
	r.expect(r.who("tcp", "[fd01::2]:80", 2), "10:2")
	// With no task behind it the address refuses at once.
	r.tell([]int{10, 11, 12, 13}, nil)
	r.expect(r.who("tcp", "10.0.0.2:80", 2), "refused:2")
	r.tell([]int{10, 11, 12, 13}, []int{13})
	r.expect(r.who("tcp", "10.0.0.2:80", 2), "13:2")
}

// A task that leaves gets no new connection from the moment that the version is reported; those that it has go on until it has
// ended, and are then reset rather than left in silence. A UDP client with a fixed port goes on with another task.
func TestLeaving(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11, 12}, []int{11})
	old, err := r.dial("tcp", "10.0.0.2:80", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	udp, err := r.dial("udp", "10.0.0.2:80", 5555)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if a, b := hear(old), hear(udp); a != "11" || b != "11" {
		t.Fatalf("%s and %s answer", a, b)
	}
	r.tell([]int{10, 11, 12}, []int{12})
	r.expect(r.who("tcp", "10.0.0.2:80", 3), "12:3")
	if got := hear(udp); got != "12" {
		t.Errorf("the client with one port hears %q, want the task that is left", got)
	}
	fmt.Fprintln(old, "still here")
	if got := hear(old); got != "still here" {
		t.Errorf("the connection that was open hears %q", got)
	}
	r.others[0].do(func() error { // it ends, and with it its address
		l, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	})
	r.tell([]int{10, 12}, []int{12})
	fmt.Fprintln(old, "and now")
	if got := hear(old); got != "reset" {
		t.Errorf("a connection to a task that has ended: %q, want a reset", got)
	}
	r.expect(r.who("tcp", "10.0.0.11:80", 1), "refused:1")
}

// TestNothingIsLeftWithAGuest: a meshproxy that stood still while the agent took its table away, and then went on with a change, leaves none
// when it hears that the container has gone.
func TestNothingIsLeftWithAGuest(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11}, []int{11})
	r.client.do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		conn.DelTable(&nftables.Table{Name: "shoal-vip", Family: nftables.TableFamilyINet})
		return conn.Flush()
	})
	r.tell([]int{10, 11, 12}, []int{11, 12})
	r.spaces.Drop("client.0")
	r.client.do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := conn.ListTables()
		if len(tables) > 0 {
			t.Errorf("it has the table %s still", tables[0].Name)
		}
		return err
	})
}

// An address that is given to a new task while it refuses is reached again.
func TestReusedAddress(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11}, []int{11})
	r.tell([]int{10}, nil)
	r.expect(r.who("tcp", "10.0.0.11:80", 1), "refused:1")
	r.tell([]int{10, 11}, []int{11})
	r.expect(r.who("tcp", "10.0.0.11:80", 1), "11:1")
	r.expect(r.who("tcp", "10.0.0.2:80", 1), "11:1")
}

// What a privileged container flushes is there again after the next look, and its own rules are left alone.
func TestFlushedComesBack(t *testing.T) {
	r := newRig(t)
	m := r.tell([]int{10, 11}, []int{11})
	own := &nftables.Table{Name: "own", Family: nftables.TableFamilyIPv4}
	r.client.do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset()
		c.AddTable(own)
		return c.Flush()
	})
	if got := r.who("tcp", "10.0.0.2:80", 1); got["11"] != 0 {
		t.Fatalf("flushed, and yet %v", got)
	}
	if err := r.spaces.Apply(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	r.expect(r.who("tcp", "10.0.0.2:80", 1), "11:1")
	r.client.do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		_, err = c.ListTableOfFamily("own", nftables.TableFamilyIPv4)
		return err
	})
	// A change that finds the table gone makes it anew at once.
	r.client.do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset()
		return c.Flush()
	})
	r.tell([]int{10, 11, 12}, []int{12})
	r.expect(r.who("tcp", "10.0.0.2:80", 1), "12:1")
}

// A task that is known to be dead gets no more connections, although the cluster counts it still.
func TestWithdrawn(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11, 12}, []int{11, 12})
	r.spaces.Withdraw("t11")
	r.expect(r.who("tcp", "10.0.0.2:80", 4), "12:4")
	r.tell([]int{10, 11, 12, 13}, []int{11, 12, 13})
	r.expect(r.who("tcp", "10.0.0.2:80", 4), "12:2 13:2")
}

// The next process takes over: it has the tables in force before it reports anything, and open connections go on.
func TestNextProcess(t *testing.T) {
	r := newRig(t)
	m := r.tell([]int{10, 11, 12}, []int{11})
	old, err := r.dial("tcp", "10.0.0.2:80", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	hear(old)
	next := space.New(testx.Env(t), 100)
	if err := next.Apply(t.Context(), m); err == nil {
		t.Error("a version is in force although the agent has handed over nothing yet")
	}
	var socket *os.File
	r.client.do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		socket = os.NewFile(uintptr(fd), "client")
		return err
	})
	next.Take("client.0", socket, nil)
	defer next.Drop("client.0")
	if err := next.Apply(t.Context(), m); err != nil {
		t.Error(err)
	}
	fmt.Fprintln(old, "still here")
	if got := hear(old); got != "still here" {
		t.Errorf("the connection that was open hears %q", got)
	}
	r.expect(r.who("tcp", "10.0.0.2:80", 2), "11:2")
}

// What was led to a task that has left while no process was here is taken from it by the next one: UDP clients at once, and a
// connection to a task that has ended is reset rather than left in silence. Others go on.
func TestLeftBeforeTheStart(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11, 12}, []int{11})
	udp, err := r.dial("udp", "10.0.0.2:80", 5555)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	old, err := r.dial("tcp", "10.0.0.2:80", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if a, b := hear(old), hear(udp); a != "11" || b != "11" {
		t.Fatalf("%s and %s answer", a, b)
	}
	next := func(entries, ready []int) {
		t.Helper()
		r.spaces = space.New(testx.Env(t), 100)
		r.take()
		r.tell(entries, ready)
	}
	next([]int{10, 11, 12}, []int{12})
	if got := hear(udp); got != "12" {
		t.Errorf("the client with one port hears %q, want the task that is left", got)
	}
	fmt.Fprintln(old, "still here")
	if got := hear(old); got != "still here" {
		t.Errorf("a connection to a task that drains hears %q", got)
	}
	next([]int{10, 12}, []int{12})
	fmt.Fprintln(old, "and now")
	if got := hear(old); got != "reset" {
		t.Errorf("a connection to a task that has ended: %q, want a reset", got)
	}
}

// A container whose task has ended is let go, so that its namespace can end.
func TestEndedTaskIsLetGo(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11}, []int{11})
	var m *mesh.Model
	m, err := m.Apply(&dispatcherv1.EndpointsResponse{Version: &typesv1.Version{Revision: 99}, Full: true})
	if err == nil {
		err = r.spaces.Apply(context.Background(), m)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := r.spaces.Held(); n != 0 {
		t.Errorf("%d containers are held", n)
	}
}

// Connections to an address count where they are opened, if they are asked for, and once, by TCP and UDP; what a change of the
// tasks or of the tables leaves in place goes on counting.
func TestCounts(t *testing.T) {
	r := newRig(t)
	expect := func(want string) {
		t.Helper()
		var got []string
		for _, c := range r.spaces.Counts() {
			got = append(got, fmt.Sprintf("%s %s %s %d", c.Container, c.VIP, c.Service, c.Count))
		}
		slices.Sort(got)
		if text := strings.Join(got, ", "); text != want {
			t.Errorf("counts are %q, want %q", text, want)
		}
	}
	r.tell([]int{10, 11, 12}, []int{11, 12})
	r.who("tcp", "10.0.0.2:80", 2)
	expect("")
	r.counted = true
	r.tell([]int{10, 11, 12}, []int{11, 12})
	r.who("tcp", "10.0.0.2:80", 5)
	r.who("tcp", "10.0.0.11:80", 5)
	r.who("udp", "10.0.0.2:80", 2)
	r.who("tcp", "[fd01::2]:80", 3)
	expect("client.0 10.0.0.2 s 7, client.0 fd01::2 s 3")
	r.tell([]int{10, 11, 12}, []int{11})
	c, err := r.dial("tcp", "10.0.0.2:80", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hear(c)
	for range 10 {
		fmt.Fprintln(c, "again")
		hear(c)
	}
	expect("client.0 10.0.0.2 s 8, client.0 fd01::2 s 3")
	// Nobody is led anywhere by an address that has no task.
	r.tell([]int{10, 11, 12}, nil)
	r.who("tcp", "10.0.0.2:80", 3)
	expect("")
}
