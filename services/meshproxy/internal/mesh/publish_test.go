package mesh_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// TestPublishedBySteps is what it is when all of it is made at once, whatever came, went, was left out or was wrong on the way.
func TestPublishedBySteps(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 2))
		var m *mesh.Model
		var published *mesh.Published
		had := kernel.NewKernel()
		for step := range 30 {
			var err error
			if m, err = m.Apply(randomResponse(r, uint64(step))); err != nil {
				t.Fatal(err)
			}
			self := randomSelf(r)
			var faults, want error
			published, faults = m.Publish(self, published)
			whole, want := m.Publish(self, nil)
			if fmt.Sprint(faults) != fmt.Sprint(want) {
				t.Fatalf("seed %d, step %d tells %v, want %v", seed, step, faults, want)
			}
			if diff := cmp.Diff(whole.Ports(), published.Ports(), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("seed %d, step %d: ports (-whole +by steps)\n%s", seed, step, diff)
			}
			if !maps.Equal(whole.Counted(), published.Counted()) {
				t.Fatalf("seed %d, step %d counts %v, want %v", seed, step, published.Counted(), whole.Counted())
			}
			now, _ := m.Desired(self, published) // what is wrong with the rest is the same for both
			then, _ := m.Desired(self, whole)
			if left := kernel.Diff(then, now); len(left) > 0 {
				t.Fatalf("seed %d, step %d: the kernel lacks %v", seed, step, left)
			}
			// What leads here from the step before is what leads to the whole.
			if a, b := fmt.Sprint(kernel.Diff(now, had)), fmt.Sprint(kernel.Diff(then, had)); a != b {
				t.Fatalf("seed %d, step %d: the steps are %s, want %s", seed, step, a, b)
			}
			had = now
		}
	}
}

// However many addresses a machine is said to have, few of them are in the kernel with each task there, and only what may call.
func TestAddressesOfAnotherAreBounded(t *testing.T) {
	own := []string{"fe80::1%eth0", "2001:db8::1%eth0", "127.0.0.1", "name"}
	for i := range 7000 {
		own = append(own, fmt.Sprintf("10.1.%d.%d", i/250, i%250))
	}
	m, err := (*mesh.Model)(nil).Apply(&dispatcherv1.EndpointsResponse{
		Version: &typesv1.Version{Revision: 1}, Full: true, MachineNetwork: "10.128.0.0/10",
		Machines: []*dispatcherv1.MeshMachine{{
			NodeId: "b", Vteps: []string{"198.51.100.2"}, Addresses: []string{"198.51.100.2"}, Blocks: []string{"10.128.2.0/24"}, OwnAddresses: own,
		}},
		Services: []*dispatcherv1.MeshService{{
			ServiceId: "s", Name: "s", Ports: []*typesv1.PortConfig{{PublishedPort: 30000, TargetPort: 80, Protocol: typesv1.Protocol_PROTOCOL_TCP}},
			Endpoints: []*dispatcherv1.MeshEndpoint{{TaskId: "t", NodeId: "b", Slot: 1, Addresses: []string{"10.128.2.5"}}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	self := mesh.Self{Node: "a", Tunnel: netip.MustParseAddr("198.51.100.1"), MTU: 1500}
	published, faults := m.Publish(self, nil)
	want, err := m.Desired(self, published)
	if err := errors.Join(faults, err); err != nil {
		t.Fatal(err)
	}
	var pairs []string
	for _, c := range kernel.Diff(want, kernel.NewKernel()) {
		if c.Entry != nil && strings.HasPrefix(c.Entry.Set, kernel.SetReturns) {
			pairs = append(pairs, c.Entry.Key)
		}
	}
	if len(pairs) != 17 || !slices.Contains(pairs, "198.51.100.2 10.128.2.5") || !slices.Contains(pairs, "10.1.0.15 10.128.2.5") {
		t.Errorf("the kernel has %d: %q; want the address that is advertised and 16 more", len(pairs), pairs[:min(len(pairs), 20)])
	}
}

// randomSelf leaves a task or a port out now and then.
func randomSelf(r *rand.Rand) mesh.Self {
	self := mesh.Self{Node: "a", Tunnel: netip.MustParseAddr("198.51.100.1"), MTU: 1500}
	if r.IntN(3) == 0 {
		self.Withdrawn = map[string]bool{fmt.Sprint("t", r.IntN(20), "-", r.IntN(3)): true}
	}
	if r.IntN(4) == 0 {
		self.Held = map[mesh.Listener]bool{{Network: "tcp", Port: uint16(30000 + r.IntN(25))}: true}
	}
	self.UserSpace = r.IntN(20) == 0
	return self
}

func randomResponse(r *rand.Rand, step uint64) *dispatcherv1.EndpointsResponse {
	out := &dispatcherv1.EndpointsResponse{Version: &typesv1.Version{Revision: step + 1}, Full: step == 0, MachineNetwork: "10.128.0.0/10"}
	if step == 0 || r.IntN(8) == 0 {
		out.Machines = append(out.Machines, &dispatcherv1.MeshMachine{
			NodeId: "b", Vteps: []string{"198.51.100.2"}, Addresses: []string{fmt.Sprint("198.51.100.", 2+r.IntN(2))}, Blocks: []string{"10.128.2.0/24"},
		})
	}
	for range r.IntN(4) {
		n := r.IntN(20)
		if r.IntN(4) == 0 {
			out.RemovedServices = append(out.RemovedServices, fmt.Sprint("s", n))
		}
		svc := &dispatcherv1.MeshService{ServiceId: fmt.Sprint("s", n), Name: fmt.Sprint("n", n), Counted: r.IntN(3) == 0}
		for range 1 + r.IntN(2) { // ports of which two services may have the same, and some are wrong
			svc.Ports = append(svc.Ports, &typesv1.PortConfig{
				PublishedPort: uint32(30000 + n + r.IntN(3)), TargetPort: uint32(8000 * min(1, r.IntN(10))), Protocol: typesv1.Protocol(1 + r.IntN(2)),
			})
		}
		for i := range r.IntN(4) {
			svc.Endpoints = append(svc.Endpoints, &dispatcherv1.MeshEndpoint{
				TaskId: fmt.Sprint("t", n, "-", i), NodeId: []string{"a", "b"}[r.IntN(2)], Slot: uint64(i), Draining: r.IntN(5) == 0,
				Addresses: []string{fmt.Sprintf("10.128.%d.%d", 1+r.IntN(2), 10+n*3+i)},
			})
		}
		out.Services = append(out.Services, svc)
	}
	return out
}
