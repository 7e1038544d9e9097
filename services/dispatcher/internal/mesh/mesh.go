// Package mesh computes the tables that meshproxies need from a snapshot, and the difference between two of them.
//
// It owns the answer to "who takes traffic": a task that is wanted, running and ready on a machine that is heard. Entries
// of overlays exist earlier, from the moment a task has a machine, so that an early dial leaves no failed neighbour
// behind. It is pure: no clock, no I/O, no goroutine.
package mesh

import (
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Tables is what one machine connects. Messages in it are never changed once made.
type Tables struct {
	// Services with published ports, by id.
	Services map[string]*dispatcherv1.MeshService
	// Machines by id, the own one too.
	Machines map[string]*dispatcherv1.MeshMachine
	// Networks with a task on this machine, by id.
	Networks map[string]*dispatcherv1.MeshNetwork
	// DataPort is the UDP port for VXLAN.
	DataPort uint32
	// MachineNetwork is its IPv4 range, as a CIDR.
	MachineNetwork string
}

// Of computes one machine's tables and takes over from prev what did not change.
func Of(s *state.Snapshot, nodeID string, shared *Shared, prev *Tables) *Tables {
	t := &Tables{
		Services: shared.Services, Machines: shared.Machines,
		DataPort: shared.DataPort, MachineNetwork: shared.MachineNetwork,
		Networks: map[string]*dispatcherv1.MeshNetwork{},
	}
	for _, id := range networksOf(s, nodeID) {
		next := shared.networks[id]
		if next == nil {
			continue
		}
		if prev != nil && proto.Equal(prev.Networks[id], next) {
			next = prev.Networks[id]
		}
		t.Networks[id] = next
	}
	return t
}

func networksOf(s *state.Snapshot, nodeID string) []string {
	var ids []string
	for t := range s.TasksOfNode(nodeID) {
		if state.Terminal(t.GetObserved().GetState()) {
			continue
		}
		for _, a := range t.GetDecided().GetAddresses() {
			if id := a.GetNetworkId(); id != "" && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// Shared is the part of the tables that is the same for every machine: computed once a snapshot.
type Shared struct {
	// Version of the snapshot.
	Version state.Version
	// Services with published ports, by id.
	Services map[string]*dispatcherv1.MeshService
	// Machines by id.
	Machines map[string]*dispatcherv1.MeshMachine
	// DataPort is the UDP port for VXLAN.
	DataPort uint32
	// MachineNetwork is its IPv4 range, as a CIDR.
	MachineNetwork string

	networks map[string]*dispatcherv1.MeshNetwork
}

// SharedOf computes it and takes over from prev what did not change.
func SharedOf(s *state.Snapshot, prev *Shared) *Shared {
	if prev == nil {
		prev = &Shared{}
	}
	next := &Shared{
		Version:        s.Version(),
		Services:       map[string]*dispatcherv1.MeshService{},
		Machines:       map[string]*dispatcherv1.MeshMachine{},
		networks:       map[string]*dispatcherv1.MeshNetwork{},
		DataPort:       s.Cluster().GetDataPath().GetPort(),
		MachineNetwork: s.Cluster().GetDataPath().GetMachineNetwork(),
	}
	for n := range s.Nodes() {
		keep(next.Machines, prev.Machines, n.GetMeta().GetId(), machine(n))
	}
	for svc := range s.Services() {
		if len(svc.GetEndpoint().GetPorts()) > 0 {
			keep(next.Services, prev.Services, svc.GetMeta().GetId(), service(s, svc))
		}
	}
	for n := range s.Networks() {
		next.networks[n.GetMeta().GetId()] = network(n)
	}
	addEntries(s, next.networks)
	for id, n := range next.networks {
		if proto.Equal(prev.networks[id], n) {
			next.networks[id] = prev.networks[id]
		}
	}
	return next
}

// keep stores the older of two equal messages, so that unchanged ones are known by their pointers.
func keep[M proto.Message](to, from map[string]M, id string, m M) {
	if old, ok := from[id]; ok && proto.Equal(old, m) {
		m = old
	}
	to[id] = m
}

func machine(n *typesv1.Node) *dispatcherv1.MeshMachine {
	return &dispatcherv1.MeshMachine{
		NodeId:    n.GetMeta().GetId(),
		Addresses: n.GetStatus().GetAddresses(),
		Vteps:     n.GetStatus().GetVteps(),
		Blocks:    n.GetBlocks(),
		MeshPort:  n.GetStatus().GetMeshPort(),
	}
}

func service(s *state.Snapshot, svc *typesv1.Service) *dispatcherv1.MeshService {
	m := &dispatcherv1.MeshService{
		ServiceId: svc.GetMeta().GetId(),
		Name:      svc.GetSpec().GetAnnotations().GetName(),
		Ports:     svc.GetEndpoint().GetPorts(),
	}
	for t := range s.TasksOfService(m.GetServiceId()) {
		if !takesTraffic(s, t) {
			continue
		}
		m.Endpoints = append(m.Endpoints, &dispatcherv1.MeshEndpoint{
			TaskId:    t.GetMeta().GetId(),
			NodeId:    t.GetDecided().GetNodeId(),
			Slot:      t.GetDecided().GetSlot(),
			Addresses: bare(addressOn(t, "")),
		})
	}
	slices.SortFunc(m.Endpoints, func(a, b *dispatcherv1.MeshEndpoint) int {
		if a.GetSlot() != b.GetSlot() {
			return int(a.GetSlot()) - int(b.GetSlot())
		}
		return strings.Compare(a.GetTaskId(), b.GetTaskId())
	})
	return m
}

func takesTraffic(s *state.Snapshot, t *typesv1.Task) bool {
	d, o := t.GetDecided(), t.GetObserved()
	return d.GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && !d.GetAbandoned() &&
		o.GetState() == typesv1.TaskState_TASK_STATE_RUNNING && o.GetReady() &&
		s.Node(d.GetNodeId()).GetStatus().GetState() == typesv1.NodeState_NODE_STATE_READY
}

func network(n *typesv1.Network) *dispatcherv1.MeshNetwork {
	return &dispatcherv1.MeshNetwork{
		NetworkId: n.GetMeta().GetId(),
		Name:      n.GetSpec().GetAnnotations().GetName(),
		Vni:       n.GetIpam().GetVni(),
		Subnets:   n.GetIpam().GetSubnets(),
		Internal:  n.GetSpec().GetInternal(),
	}
}

// addEntries puts every task that has a machine on its networks. Tasks come in the order of their ids, so equal states
// give equal tables.
func addEntries(s *state.Snapshot, networks map[string]*dispatcherv1.MeshNetwork) {
	for t := range s.Tasks() {
		if t.GetDecided().GetNodeId() == "" || state.Terminal(t.GetObserved().GetState()) {
			continue
		}
		for _, a := range t.GetDecided().GetAddresses() {
			if n := networks[a.GetNetworkId()]; n != nil {
				n.Entries = append(n.Entries, &dispatcherv1.NetworkEntry{
					TaskId:    t.GetMeta().GetId(),
					NodeId:    t.GetDecided().GetNodeId(),
					Addresses: bare(a.GetAddresses()),
				})
			}
		}
	}
}

func addressOn(t *typesv1.Task, networkID string) []string {
	for _, a := range t.GetDecided().GetAddresses() {
		if a.GetNetworkId() == networkID {
			return a.GetAddresses()
		}
	}
	return nil
}

// bare cuts prefix lengths off. Addresses in the store were checked when they were claimed.
func bare(prefixes []string) []string {
	out := make([]string, 0, len(prefixes))
	for _, p := range prefixes {
		if prefix, err := netip.ParsePrefix(p); err == nil {
			out = append(out, prefix.Addr().String())
		}
	}
	return out
}
