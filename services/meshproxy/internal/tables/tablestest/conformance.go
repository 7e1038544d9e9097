// Package tablestest holds every implementation of tables.Tables to one contract. It keeps no state.
package tablestest

import (
	"testing"

	"maps"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

// Self is the machine that Conformance speaks of. Its tunnel end must be an address of the tables' machine.
const Self = "a"

// Converge brings tables to what a model wants, and fails unless reading back shows no difference.
func Converge(t *testing.T, tb tables.Tables, m *mesh.Model, self mesh.Self) []kernel.Change {
	t.Helper()
	self.Numbers = m.Number(self, nil)
	published, err := m.Publish(self, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := m.Desired(self, published)
	if err != nil {
		t.Fatal(err)
	}
	keys := slices.Collect(maps.Keys(want.Settings))
	have, err := tb.Read(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	changes := kernel.Diff(want, have)
	if err := tb.Apply(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	have, err = tb.Read(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range kernel.Diff(want, have) {
		t.Errorf("after Apply still differs: %s", c)
	}
	return changes
}

// Conformance takes tables through the life of a machine: empty, blocks, overlays with peers, changes, and back.
func Conformance(t *testing.T, tb tables.Tables, self mesh.Self) {
	var m *mesh.Model
	for _, s := range life(self) {
		t.Run(s.name, func(t *testing.T) {
			next, err := m.Apply(s.next)
			if err != nil {
				t.Fatal(err)
			}
			m = next
			Converge(t, tb, m, self)
			if again := Converge(t, tb, m, self); len(again) > 0 {
				t.Errorf("the second time is not idle: %s", again)
			}
		})
	}
}

type step struct {
	name string
	next *dispatcherv1.EndpointsResponse
}

func life(self mesh.Self) []step {
	version := func(r uint64) *typesv1.Version {
		return &typesv1.Version{Epoch: &typesv1.Epoch{Number: 1}, Revision: r}
	}
	entry := func(task, node string, addrs ...string) *dispatcherv1.NetworkEntry {
		return &dispatcherv1.NetworkEntry{TaskId: task, NodeId: node, Addresses: addrs}
	}
	return []step{
		{"a machine without containers has only its guard", &dispatcherv1.EndpointsResponse{Version: version(1), Full: true}},
		{"its block makes the machine's bridge", &dispatcherv1.EndpointsResponse{
			Version: version(2), DataPort: 8477, MachineNetwork: "10.128.0.0/10",
			Machines: []*dispatcherv1.MeshMachine{
				{NodeId: Self, Vteps: []string{self.Tunnel.String()}, Blocks: []string{"10.128.1.0/24", "fd00:5a1:1:1::/64"}},
				{NodeId: "b", Vteps: []string{"198.51.100.2"}, Blocks: []string{"10.128.2.0/24"}},
			},
		}},
		{"published ports come with their tasks", &dispatcherv1.EndpointsResponse{
			Version: version(3), Services: []*dispatcherv1.MeshService{
				service("web", 30000, "10.128.1.5", "10.128.2.5", "10.128.2.6"), service("api", 30001, "10.128.1.6", "fd00:5a1:1:1::7"),
			},
		}},
		{"one task leaves, one comes, one service goes", &dispatcherv1.EndpointsResponse{
			Version: version(3), Services: []*dispatcherv1.MeshService{service("web", 30000, "10.128.1.5", "10.128.2.7")},
			RemovedServices: []string{"api"},
		}},
		{"containers of its own come", &dispatcherv1.EndpointsResponse{
			Version: version(3), LocalTasks: []*dispatcherv1.LocalTask{
				{TaskId: "l1", Addresses: []string{"10.128.1.5", "fd00:5a1:1:1::5"}}, {TaskId: "l2", Addresses: []string{"10.128.1.6"}},
			},
		}},
		{"one of them goes", &dispatcherv1.EndpointsResponse{Version: version(3), RemovedLocalTasks: []string{"l2"}}},
		{"overlays come with entries of all others", &dispatcherv1.EndpointsResponse{
			Version: version(3),
			Networks: []*dispatcherv1.MeshNetwork{
				{NetworkId: "n1", Name: "front", Vni: 4097, Entries: []*dispatcherv1.NetworkEntry{
					entry("t1", Self, "10.0.0.5"), entry("t2", "b", "10.0.0.6", "fd00:5a1:2::6"), entry("t3", "b", "10.0.0.7"),
				}},
				{NetworkId: "n2", Name: "back", Vni: 4098, Internal: true, Entries: []*dispatcherv1.NetworkEntry{entry("t1", Self, "10.0.16.5")}},
			},
		}},
		{"a task moves to a new machine, another leaves", &dispatcherv1.EndpointsResponse{
			Version:  version(4),
			Machines: []*dispatcherv1.MeshMachine{{NodeId: "c", Vteps: []string{"198.51.100.3", "2001:db8::3"}}},
			Networks: []*dispatcherv1.MeshNetwork{{NetworkId: "n1", Name: "front", Vni: 4097, Entries: []*dispatcherv1.NetworkEntry{
				entry("t1", Self, "10.0.0.5"), entry("t2", "c", "10.0.0.6"),
			}}},
			RemovedNetworks: []string{"n2"},
		}},
		{"another data port makes the tunnels again", &dispatcherv1.EndpointsResponse{Version: version(5), DataPort: 9477}},
		{"all goes but the guard", &dispatcherv1.EndpointsResponse{Version: version(6), Full: true}},
	}
}

// service is one with a TCP, a UDP and an SCTP port; tasks with an address of the second block run on machine b.
func service(name string, port uint32, addrs ...string) *dispatcherv1.MeshService {
	s := &dispatcherv1.MeshService{ServiceId: name, Name: name, Ports: []*typesv1.PortConfig{
		{PublishedPort: port, TargetPort: 8000}, {PublishedPort: port, TargetPort: 53, Protocol: typesv1.Protocol_PROTOCOL_UDP},
		{PublishedPort: port, TargetPort: 3868, Protocol: typesv1.Protocol_PROTOCOL_SCTP},
	}}
	for _, a := range addrs {
		node := Self
		if strings.Contains(a, ".2.") {
			node = "b"
		}
		s.Endpoints = append(s.Endpoints, &dispatcherv1.MeshEndpoint{TaskId: name + a, NodeId: node, Addresses: []string{a}})
	}
	return s
}
