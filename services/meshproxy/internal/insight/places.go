package insight

import (
	"maps"
	"net/netip"
	"slices"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// place is a task at one of its addresses.
type place struct {
	task, node         string
	serviceID, service string
}

// placesOf are the tasks by their addresses: on the machine network, and on the overlays of this machine.
func placesOf(m *mesh.Model) map[netip.Addr]place {
	out := map[netip.Addr]place{}
	put := func(p place, addresses []string) {
		for _, text := range addresses {
			if a, err := netip.ParseAddr(text); err == nil {
				out[a.Unmap()] = p
			}
		}
	}
	for _, svc := range m.Services().All() {
		for _, e := range svc.GetEndpoints() {
			put(place{e.GetTaskId(), e.GetNodeId(), svc.GetServiceId(), svc.GetName()}, e.GetAddresses())
		}
	}
	for id, n := range m.Networks() {
		nodes := map[string]string{}
		for _, e := range n.GetEntries() {
			nodes[e.GetTaskId()] = e.GetNodeId()
		}
		if d := m.Directory(id); d != nil {
			for svc := range d.InOrder() {
				for _, e := range svc.GetEndpoints() {
					put(place{e.GetTaskId(), nodes[e.GetTaskId()], svc.GetServiceId(), svc.GetName()}, e.GetAddresses())
				}
			}
		}
	}
	return out
}

// serviceOf is one with published ports, by its id or name; nil if there is none.
func serviceOf(m *mesh.Model, ref string) *dispatcherv1.MeshService {
	if svc := m.Services().Get(ref); svc != nil {
		return svc
	}
	for _, svc := range m.Services().All() {
		if svc.GetName() == ref {
			return svc
		}
	}
	return nil
}

// virtualOf is a service on the networks of this machine, by its id or name.
func virtualOf(m *mesh.Model, ref string) (out []*dispatcherv1.NetworkService) {
	for _, id := range slices.Sorted(maps.Keys(m.Networks())) {
		if d := m.Directory(id); d != nil {
			for svc := range d.InOrder() {
				if svc.GetServiceId() == ref || svc.GetName() == ref {
					out = append(out, svc)
				}
			}
		}
	}
	return out
}

// gatewayOf is a machine's own IPv4 address on the machine network, from and to which packets go by the tunnel; ok is false if
// it has no end of it.
func gatewayOf(m *mesh.Model, node string) (a netip.Addr, ok bool) {
	if m.Machines()[node].GetDataplane() == typesv1.Dataplane_DATAPLANE_USERSPACE {
		return a, false
	}
	for _, text := range m.Machines()[node].GetBlocks() {
		if block, err := netip.ParsePrefix(text); err == nil && block.Addr().Is4() {
			return block.Masked().Addr().Next(), true
		}
	}
	return a, false
}
