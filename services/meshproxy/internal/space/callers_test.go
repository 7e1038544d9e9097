package space_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/google/nftables"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// allow says who may call the container; nothing: anybody.
func (r *rig) allow(prefixes ...string) *mesh.Model {
	r.t.Helper()
	m := r.callers(prefixes...)
	if err := r.spaces.Apply(r.t.Context(), m); err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *rig) callers(prefixes ...string) *mesh.Model {
	r.t.Helper()
	r.revision++
	resp := &dispatcherv1.EndpointsResponse{
		Version:    &typesv1.Version{Revision: r.revision},
		Machines:   []*dispatcherv1.MeshMachine{{NodeId: "m1", Addresses: []string{"192.0.2.1"}, Blocks: []string{"10.128.1.0/24"}}},
		LocalTasks: []*dispatcherv1.LocalTask{{TaskId: "client", ServiceId: "own", NetworkIds: []string{"n"}, Addresses: []string{"10.128.1.10"}}},
		Callers:    []*dispatcherv1.ServiceCallers{{ServiceId: "own", Callers: &dispatcherv1.Callers{Prefixes: prefixes}}},
	}
	if len(prefixes) == 0 {
		resp.Callers, resp.RemovedCallers = nil, []string{"own"}
	}
	m, err := r.last.Apply(resp)
	if err != nil {
		r.t.Fatal(err)
	}
	r.last = m
	return m
}

// calls are the answers that one of the others gets from the container, 10.0.0.10 and fd01::10, by TCP and UDP.
func (r *rig) calls(from int) string {
	r.t.Helper()
	var out string
	for _, network := range []string{"tcp", "udp"} {
		for _, to := range []string{"10.0.0.10:80", "[fd01::10]:80"} {
			var c net.Conn
			var err error
			r.others[from-11].do(func() error {
				c, err = (&net.Dialer{Timeout: 2 * time.Second}).DialContext(r.t.Context(), network, to)
				return nil
			})
			if err != nil {
				out += " " + reason(err)
				continue
			}
			out += " " + hear(c)
			c.Close()
		}
	}
	return out[1:]
}

const (
	let     = "10 10 10 10"
	refused = "refused refused refused refused"
)

func (r *rig) letIn(which map[int]bool) {
	r.t.Helper()
	for from, in := range which {
		want := map[bool]string{true: let, false: refused}[in]
		if got := r.calls(from); got != want {
			r.t.Errorf("%d is answered %q, want %q", from, got, want)
		}
	}
}

// Once its service names somebody only those come in, and who does not hears it at once: addresses and ranges of both families,
// TCP and UDP. The container itself, and what it begins, goes on in any case.
func TestOnlyCallersComeIn(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11, 12, 13}, []int{11, 12, 13})
	r.letIn(map[int]bool{11: true, 12: true})
	r.allow("10.0.0.11", "fd01::11")
	r.letIn(map[int]bool{11: true, 12: false, 13: false})
	r.allow("10.0.0.12/31", "10.0.0.12/30", "fd01::12/127", "10.0.0.13", "ffff::/16", "255.0.0.0/8")
	r.letIn(map[int]bool{11: false, 12: true, 13: true})
	r.expect(r.who("tcp", "127.0.0.1:80", 1), "10:1") // a health check
	r.expect(r.who("tcp", "10.0.0.10:80", 1), "10:1")
	r.expect(r.who("tcp", "10.0.0.11:80", 1), "11:1")
	r.expect(r.who("udp", "[fd01::11]:80", 1), "11:1")
	r.expect(r.who("tcp", "10.0.0.2:80", 3), "11:1 12:1 13:1")
	r.allow("198.51.100.0/24", "nonsense")
	r.letIn(map[int]bool{11: false, 12: false})
	r.allow()
	r.letIn(map[int]bool{11: true, 12: true})
	if chains := r.chains(); chains["callers"] {
		t.Errorf("where anybody may call there is still a chain for it: %v", chains)
	}
}

func (r *rig) chains() map[string]bool {
	r.t.Helper()
	out := map[string]bool{}
	c := r.another()
	list, err := c.ListChains()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, ch := range list {
		out[ch.Name] = true
	}
	return out
}

// A caller that may no longer hears a reset on the connections that it has, and the container's side of them ends too. Those of
// others go on.
func TestCallersLoseTheirConnections(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11, 12}, []int{11, 12})
	r.allow("10.0.0.11", "10.0.0.12")
	open := func(from int) (c net.Conn) {
		r.others[from-11].do(func() (err error) {
			c, err = net.DialTimeout("tcp", "10.0.0.10:80", 2*time.Second)
			return err
		})
		t.Cleanup(func() { c.Close() })
		if got := hear(c); got != "10" {
			t.Fatalf("%d is answered %q", from, got)
		}
		return c
	}
	loses, keeps := open(11), open(12)
	r.allow("10.0.0.12")
	fmt.Fprintln(loses, "hello")
	if got := hear(loses); got != "reset" {
		t.Errorf("who may no longer call hears %q, want a reset", got)
	}
	fmt.Fprintln(keeps, "hello")
	if got := hear(keeps); got != "hello" {
		t.Errorf("who may still call hears %q", got)
	}
}

// The container's half of a connection whose caller has lost its right ends as soon as it says something.
func TestCalledEndsToo(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11}, []int{11})
	r.allow("10.0.0.11")
	var l net.Listener
	r.client.do(func() (err error) { l, err = net.Listen("tcp", ":81"); return err })
	defer l.Close()
	var caller net.Conn
	r.others[0].do(func() (err error) { caller, err = net.DialTimeout("tcp", "10.0.0.10:81", 2*time.Second); return err })
	defer caller.Close()
	called, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer called.Close()
	r.allow("10.0.0.13")
	fmt.Fprintln(caller, "hello")
	if got := hear(caller); got != "reset" {
		t.Fatalf("the caller hears %q, want a reset", got)
	}
	fmt.Fprintln(called, "anybody?")
	called.SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.ReadAll(called); reason(err) != "reset" {
		t.Errorf("the container hears %v, want a reset", err)
	}
}

// What somebody within the container has flushed is back at the next look, and is never there without the rules that close it.
func TestCallersAreLookedAfter(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11, 12}, []int{11})
	m := r.allow("10.0.0.11", "fd01::11")
	c := r.another()
	c.FlushRuleset()
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	r.letIn(map[int]bool{12: true})
	if err := r.spaces.Apply(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	r.letIn(map[int]bool{11: true, 12: false})
	_, err := c.ListTableOfFamily("shoal-vip", nftables.TableFamilyINet)
	if err != nil {
		t.Error(err)
	}
}

// The machine itself may call, and by another machine's gateway too if its own address is among the callers.
func TestGatewaysCall(t *testing.T) {
	model := func(prefixes ...string) *mesh.Callers {
		var none *mesh.Model
		task := &dispatcherv1.LocalTask{TaskId: "t", ServiceId: "s", Addresses: []string{"10.128.1.10"}}
		m, err := none.Apply(&dispatcherv1.EndpointsResponse{
			Version: &typesv1.Version{Revision: 1}, Full: true, LocalTasks: []*dispatcherv1.LocalTask{task},
			Machines: []*dispatcherv1.MeshMachine{
				{NodeId: "m1", Addresses: []string{"192.0.2.1"}, Blocks: []string{"10.128.1.0/24", "fd00:0:0:1::/64"}},
				{NodeId: "m2", Addresses: []string{"192.0.2.2"}, Blocks: []string{"10.128.2.0/24"}},
			},
			Callers: []*dispatcherv1.ServiceCallers{{ServiceId: "s", Callers: &dispatcherv1.Callers{Prefixes: prefixes}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		c := m.Callers(task, nil)
		if m.Callers(task, c) != c {
			t.Error("what has not changed is made anew")
		}
		return c
	}
	for _, tc := range []struct {
		allowed  string
		machines string
	}{{"198.51.100.0/24", "true true false"}, {"192.0.2.1", "true true true"}, {"192.0.2.2", "true true false"}} {
		c := model(tc.allowed)
		var got string
		for _, a := range []string{"10.128.1.1", "fd00:0:0:1::1", "10.128.2.1"} {
			got += " " + strconv.FormatBool(c.Allow(netip.MustParseAddr(a)))
		}
		if got[1:] != tc.machines {
			t.Errorf("%s: gateways of this machine and of the other may call: %s, want %s", tc.allowed, got, tc.machines)
		}
	}
}

// A change of callers is a change of elements: its size does not follow how many there are.
func TestManyCallers(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11, 12}, []int{11})
	many := []string{"10.0.0.11", "fd01::11"}
	for i := range 2000 {
		many = append(many, fmt.Sprintf("10.3.%d.%d", i/250, i%250))
	}
	r.allow(many...)
	r.letIn(map[int]bool{11: true, 12: false})
	r.allow(append(many, "10.0.0.12", "fd01::12")...)
	r.letIn(map[int]bool{11: true, 12: true})
	r.allow(many[2:]...)
	r.letIn(map[int]bool{11: false, 12: false})
}

// A container on no network has no tables, and its connections are not tracked for it, until its service names somebody.
func TestContainerOnNoNetwork(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11, 12}, []int{11})
	r.alone(false)
	if chains := r.chains(); len(chains) > 0 {
		t.Errorf("a container that needs no tables has the chains %v", chains)
	}
	r.letIn(map[int]bool{11: true, 12: true})
	r.alone(true, "10.0.0.11", "fd01::11")
	r.letIn(map[int]bool{11: true, 12: false})
	r.alone(true)
	r.letIn(map[int]bool{11: true, 12: true})
}

// alone takes the container from all networks, as if it had begun so where it was not told of before.
func (r *rig) alone(known bool, prefixes ...string) {
	r.t.Helper()
	r.callers(prefixes...)
	r.revision++
	m, err := r.last.Apply(&dispatcherv1.EndpointsResponse{
		Version:    &typesv1.Version{Revision: r.revision},
		LocalTasks: []*dispatcherv1.LocalTask{{TaskId: "client", ServiceId: "own", Addresses: []string{"10.128.1.10"}}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.last = m
	if !known {
		r.spaces.Drop("client.0")
		c := r.another()
		c.FlushRuleset()
		if err := c.Flush(); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := r.spaces.Apply(r.t.Context(), m); err != nil {
		r.t.Fatal(err)
	}
	if !known {
		r.take()
	}
}
