package tables_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// newSealedMesh has the mesh encrypted, and a client of machine a that asks for a task of machine b.
func newSealedMesh(t *testing.T) (l *sealedLab, client *host) {
	t.Helper()
	l = newSealedLab(t, true)
	l.mesh = true
	l.published = &dispatcherv1.MeshService{
		ServiceId: "s", Name: "web", Ports: []*typesv1.PortConfig{{PublishedPort: 30000, TargetPort: 8000}},
		Endpoints: []*dispatcherv1.MeshEndpoint{{TaskId: "t2", NodeId: "b", Addresses: []string{"10.128.2.5"}}},
	}
	l.converge()
	attach(l.b.host, l.b.container, kernel.MachineBridge, "shoalv0", "eth0", "10.128.2.5/32", mesh.MAC(addr("10.128.2.5")))
	defaultRoute(l.b.container, "eth0", "10.128.2.1")
	client = newHost(t)
	join(client, "eth0", "203.0.113.9/24", l.a.host, "outside", "203.0.113.1/24")
	route(client, "198.51.100.0/24", "203.0.113.1")
	route(l.b.host, "203.0.113.0/24", "198.51.100.1") // a machine knows a way to its clients
	return l, client
}

// TestSealedMesh: with the mesh encrypted, a published port leads to a task of the other machine, and nothing of it is on the wire.
func TestSealedMesh(t *testing.T) {
	l, client := newSealedMesh(t)
	wire := l.a.capture(t)
	answer(t, l.b.container, "10.128.2.5:8000", secret)
	if got, err := ask(client, "198.51.100.1:30000"); err != nil || !strings.HasPrefix(got, secret+"203.0.113.9:") {
		t.Errorf("answered %q, %v; want the client's own address", got, err)
	}
	if plain, vxlan, all := wire.saw().leaks(secret); plain+vxlan > 0 || all == 0 {
		t.Errorf("on the wire: %d frames with clear text, %d of the tunnel in the clear, of %d", plain, vxlan, all)
	}
}

// TestSealedMeshWithoutTunnel: while the tunnel is made anew, as when the mesh is switched, what was led into it waits: neither what the
// client says nor what the task says goes by the machine's other routes, which lead everywhere.
func TestSealedMeshWithoutTunnel(t *testing.T) {
	l, client := newSealedMesh(t)
	route(l.a.host, "0.0.0.0/0", l.b.vtep)
	var ln net.Listener
	l.b.container.do(func() (err error) {
		ln, err = net.Listen("tcp", "10.128.2.5:8000")
		return err
	})
	defer ln.Close()
	var asks, answers net.Conn
	client.do(func() (err error) {
		asks, err = net.DialTimeout("tcp", "198.51.100.1:30000", 5*time.Second)
		return err
	})
	defer asks.Close()
	answers, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer answers.Close()
	wire := l.a.capture(t)
	for _, m := range []*sealedMachine{l.a, l.b} {
		m.do(func() error {
			link, err := netlink.LinkByName(kernel.MachineTunnel)
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		})
	}
	for conn, mark := range map[net.Conn]func(){
		asks:    func() { client.do(func() error { return tellOf("198.51.100.2:9", "after the client") }) },
		answers: func() { l.b.do(func() error { return tellOf("198.51.100.1:9", "after the task") }) },
	} {
		if _, err := conn.Write([]byte(secret)); err != nil {
			t.Fatal(err)
		}
		mark()
	}
	for _, last := range []string{"after the client", "after the task"} { // what was sent before them has passed, or never will
		for deadline := time.Now().Add(5 * time.Second); ; {
			if passed, _, _ := wire.leaks(last); passed > 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%q is not on the wire", last)
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	if plain, vxlan, all := wire.leaks(secret); plain+vxlan > 0 {
		t.Errorf("on the wire: %d frames with clear text, %d of the tunnel in the clear, of %d", plain, vxlan, all)
	}
}

// tellOf sends a datagram.
func tellOf(address, text string) error {
	c, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	_, err = c.Write([]byte(text))
	return errors.Join(err, c.Close())
}

// TestUnguardedIsNotSealed: where the packet filter can't be put in force, because somebody has a chain of our name that is none, an
// encrypted network gets no tunnel, until it can.
func TestUnguardedIsNotSealed(t *testing.T) {
	l := newSealedLab(t, true)
	spoil := func(change func(*nftables.Conn, *nftables.Table)) {
		l.a.do(func() error {
			conn, err := nftables.New()
			if err != nil {
				return err
			}
			table := &nftables.Table{Name: "shoal", Family: nftables.TableFamilyINet}
			conn.DelTable(table)
			change(conn, table)
			return conn.Flush()
		})
	}
	tunnel := kernel.Tunnel(4097)
	l.a.do(func() error {
		link, err := netlink.LinkByName(tunnel)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	spoil(func(conn *nftables.Conn, table *nftables.Table) {
		conn.AddTable(table)
		conn.AddChain(&nftables.Chain{Name: "raw-output", Table: table})
	})
	if err := l.turn(l.a); err == nil || !strings.Contains(err.Error(), "packet filter") {
		t.Fatalf("the packet filter is in force: %v", err)
	}
	if _, err := l.a.index(tunnel); err == nil {
		t.Error("an encrypted network has its tunnel, and nothing guards it")
	}
	spoil(func(*nftables.Conn, *nftables.Table) {})
	l.converge()
	if _, err := l.a.index(tunnel); err != nil {
		t.Error(err)
	}
}
