//go:build chaos

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// nameServer is on every machine's gateway too.
const nameServer = "fd73:686f:616c::53"

// machines are those of the matrix, 1 manager among them. tellers is how many have a task behind the ports.
const machines, tellers = 30, 15

// matrix is the whole of it: who may call, what can be dialled, and what a task must take its caller for.
type matrix struct {
	*cluster
	hosts   map[string]machine
	byName  map[string]string // the host of each task behind the ports, by the container's hostname
	asked   atomic.Int64
	refused atomic.Int64
	wrong   atomic.Int64
}

// machine is one host: its addresses and those of its gateway and of its caller on the machine network and on the overlay, IPv4 and IPv6.
type machine struct {
	wire, gateway, caller, overlay [2]string
	space, callerSpace             string
	teller                         string // the hostname of its task behind the ports, if it has one
}

// door is one published port.
type door struct {
	network, policy, plane string
	port                   int
}

func doors() (out []door, flags []string) {
	for p, plane := range []string{"kernel", "userspace"} {
		for i, policy := range []string{"cluster", "local", "prefer-local", "affinity"} {
			for _, network := range []string{"tcp", "udp"} {
				d := door{network, policy, plane, 30010 + 10*p + i}
				out = append(out, d)
				how := "policy=" + policy
				if policy == "affinity" {
					how = "affinity=client-ip"
				}
				flags = append(flags, "-p", fmt.Sprintf("published=%d,target=8003,protocol=%s,dataplane=%s,%s", d.port, network, plane, how))
			}
		}
	}
	return out, flags
}

// TestMatrix: with 30 machines a container and the machine itself of each, its loopback and a client outside ask every machine by every
// published port: TCP and UDP, IPv4 and IPv6, carried by the kernel and in user space, under each policy. Who answers is who may, and takes
// its caller for who it is. Then each container asks each of an overlay, by its address.
func TestMatrix(t *testing.T) {
	roomForNeighbours(t)
	c := bring(t, 1, machines-1)
	m := &matrix{cluster: c, hosts: map[string]machine{}, byName: map[string]string{}}
	c.shoal("network", "create", "-d", "overlay", "--ipv6", "front")
	all, flags := doors()
	image := c.image("1.0.0")
	c.shoal("service", "create", "--name", "caller", "--mode", "global", "--network", "front", image)
	c.shoal(append(append([]string{"service", "create", "--name", "teller", "--network", "front", "--replicas", fmt.Sprint(tellers)}, flags...), image)...)
	c.converged("caller", machines, 3*time.Minute)
	c.converged("teller", tellers, time.Minute)
	m.survey()
	began := time.Now()
	m.each(func(name string, from machine) {
		m.ask(all, name, "container", from.callerSpace)
		m.ask(all, name, "machine", from.space)
		m.ask(all, name, "loopback", from.space)
	})
	m.ask(all, "", "client", "/proc/self/ns/net")
	t.Logf("%d connections by published ports in %s, %d of them refused as they should be", m.asked.Load(), time.Since(began).Round(time.Second), m.refused.Load())
	before := m.asked.Load()
	m.each(func(name string, from machine) { m.overlay(name, from) })
	t.Logf("%d connections by the overlay", m.asked.Load()-before)
}

// roomForNeighbours has the machines' one kernel know as many neighbours as their own kernels would: all namespaces share its room, which is
// that of one machine, and packets to those whom it cannot remember are lost.
func roomForNeighbours(t *testing.T) {
	t.Helper()
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, limit := range []string{"gc_thresh3", "gc_thresh2"} {
			path := "/proc/sys/net/" + family + "/neigh/default/" + limit
			was, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, []byte("65536"), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.WriteFile(path, was, 0o600); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// survey finds all addresses and names.
func (m *matrix) survey() {
	m.t.Helper()
	status, err := m.lab.Status(m.t.Context())
	m.must(err)
	for _, h := range status.Hosts {
		at := machine{space: m.space(h.Name, 0)}
		for _, a := range h.Addresses {
			at.wire[family(a)] = a
		}
		at.gateway = m.first(at.space, "shoal0")
		m.hosts[h.Name] = at
	}
	for _, b := range m.boxes("caller") {
		at := m.hosts[b.host]
		at.callerSpace = m.space(b.host, b.pid)
		at.caller, at.overlay = m.first(at.callerSpace, "eth0"), m.first(at.callerSpace, "eth1")
		m.hosts[b.host] = at
	}
	for _, b := range m.boxes("teller") {
		at := m.hosts[b.host]
		said, err := tell(m.space(b.host, b.pid), "tcp", "127.0.0.1:8003")
		m.must(err)
		at.teller, _, _ = strings.Cut(said, " ")
		m.byName[at.teller] = b.host
		m.hosts[b.host] = at
	}
	if len(m.hosts) != machines || len(m.byName) != tellers {
		m.t.Fatalf("%d machines and %d tasks; want %d and %d", len(m.hosts), len(m.byName), machines, tellers)
	}
}

// family is 0 for IPv4, 1 for IPv6.
func family(address string) int {
	if strings.Contains(address, ":") {
		return 1
	}
	return 0
}

// first are the first addresses of both families that a link has for others.
func (m *matrix) first(space, link string) (out [2]string) {
	m.t.Helper()
	m.must(within(space, func() error {
		l, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		all, err := l.Addrs()
		for _, a := range all {
			ip := a.(*net.IPNet).IP
			if f := family(ip.String()); out[f] == "" && ip.IsPrivate() && ip.String() != nameServer {
				out[f] = ip.String()
			}
		}
		return err
	}))
	return out
}

// tell asks who answers, and whom it takes for its caller.
func tell(space, network, address string) (said string, err error) {
	err = within(space, func() error {
		said, err = tellHere(network, address)
		return err
	})
	return said, err
}

func tellHere(network, address string) (string, error) {
	conn, err := net.DialTimeout(network, address, 10*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	buf := make([]byte, 300)
	if network == "udp" {
		if _, err := conn.Write([]byte("?")); err != nil {
			return "", err
		}
		n, err := conn.Read(buf)
		return strings.TrimSpace(string(buf[:n])), err
	}
	said, err := io.ReadAll(conn)
	if len(said) == 0 && err == nil {
		err = io.ErrUnexpectedEOF
	}
	return strings.TrimSpace(string(said)), err
}

// callersAtOnce bounds how many callers ask side by side.
const callersAtOnce = 4

// each has every host do something, some side by side.
func (m *matrix) each(do func(name string, from machine)) {
	var all sync.WaitGroup
	places := make(chan struct{}, callersAtOnce)
	for name, from := range m.hosts {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			do(name, from)
		})
	}
	all.Wait()
}

// ask has one caller ask every machine by every door, by both families.
func (m *matrix) ask(all []door, home, who, space string) {
	err := within(space, func() error {
		for entry, at := range m.hosts {
			if who == "loopback" && entry != home {
				continue
			}
			for _, d := range all {
				for f := range 2 {
					to := at.wire[f]
					if who == "loopback" {
						to = []string{"127.0.0.1", "::1"}[f]
					}
					m.one(d, f, home, who, entry, to)
				}
			}
			if m.wrong.Load() > 50 {
				return fmt.Errorf("enough is wrong")
			}
		}
		return nil
	})
	if err != nil {
		m.t.Errorf("%s of %s: %v", who, home, err)
	}
}

func (m *matrix) fault(format string, args ...any) {
	m.wrong.Add(1)
	m.t.Errorf(format, args...)
}

// one is one connection; by a port with affinity two.
func (m *matrix) one(d door, f int, home, who, entry, to string) {
	where := fmt.Sprintf("%s %s asks %s by %s %s (%s, %s)", who, home, entry, d.network, net.JoinHostPort(to, fmt.Sprint(d.port)), d.policy, d.plane)
	times := 1
	if d.policy == "affinity" {
		times = 2
	}
	var answered []string
	for range times {
		m.asked.Add(1)
		said, err := tellHere(d.network, net.JoinHostPort(to, fmt.Sprint(d.port)))
		if d.policy == "local" && m.hosts[entry].teller == "" {
			if m.refused.Add(1); err == nil {
				m.fault("%s: %q answered, and there is no task", where, said)
			}
			return
		}
		if err != nil {
			m.fault("%s: %v", where, err)
			return
		}
		name, seen, _ := strings.Cut(said, " ")
		task, known := m.byName[name]
		if own := m.hosts[entry].teller != ""; !known || (own && task != entry && strings.Contains(d.policy, "local")) {
			m.fault("%s: %s answered, of %q", where, name, task)
		}
		if want := m.known(d, f, home, who, entry, task); want != "" && net.ParseIP(seen).String() != want {
			m.fault("%s: the task on %s took it for %s, want %s", where, task, seen, want)
		}
		answered = append(answered, name)
	}
	if len(slices.Compact(answered)) > 1 {
		m.fault("%s: led to %v", where, answered)
	}
}

// known is whom the task takes for its caller; empty where the test does not know its own address.
func (m *matrix) known(d door, f int, home, who, entry, task string) string {
	switch {
	case who == "client":
		return m.outside(f)
	case who == "loopback": // it means nothing elsewhere: the task's machine speaks
		return m.hosts[task].gateway[f]
	case who == "container" && entry == home:
		return m.hosts[home].caller[f]
	case task == home && d.plane == "kernel" && entry != home: // out as its machine, and back to the machine that it came from
		return m.hosts[entry].gateway[f]
	}
	return m.hosts[home].wire[f]
}

// outside is this test's own address on the machines' network.
func (m *matrix) outside(f int) string {
	c, err := net.Dial("udp", net.JoinHostPort(m.hosts["m1"].wire[f], "9"))
	if err != nil {
		return ""
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).IP.String()
}

// overlay has a caller ask all others of its network, which take it for its address there.
func (m *matrix) overlay(name string, from machine) {
	err := within(from.callerSpace, func() error {
		for other, at := range m.hosts {
			for f := range 2 {
				for _, network := range []string{"tcp", "udp"} {
					m.asked.Add(1)
					said, err := tellHere(network, net.JoinHostPort(at.overlay[f], "8003"))
					if _, seen, _ := strings.Cut(said, " "); err != nil || net.ParseIP(seen).String() != from.overlay[f] {
						m.fault("%s to %s, %s by %s: %q, %v; want %s", name, other, at.overlay[f], network, said, err, from.overlay[f])
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		m.t.Errorf("overlay from %s: %v", name, err)
	}
}
