package silence

import (
	"slices"

	"google.golang.org/protobuf/proto"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// Without is the model in which no new connection is led to the named machines: their tasks stand behind a service only if
// no other does. Connections that are there go on, as with a task that drains.
func Without(m *mesh.Model, silent map[string]bool) *mesh.Model {
	if m == nil || len(silent) == 0 {
		return m
	}
	// It is as if the cluster had said so: what it has said of all else stays.
	r := &dispatcherv1.EndpointsResponse{Version: m.Version()}
	for _, svc := range m.Services().All() {
		if fewer := withoutEndpoints(svc, silent); fewer != svc {
			r.Services = append(r.Services, fewer)
		}
	}
	for id, n := range m.Networks() {
		if d := m.Directory(id); d != nil {
			r.NetworkServices = append(r.NetworkServices, withoutNames(d, placesOn(n, silent))...)
		}
	}
	next, err := m.Apply(r)
	if err != nil { // it is a difference to itself, which nothing refuses
		return m
	}
	return next
}

// withoutEndpoints is the service itself if nothing is to be left out.
func withoutEndpoints(svc *dispatcherv1.MeshService, silent map[string]bool) *dispatcherv1.MeshService {
	takes := func(e *dispatcherv1.MeshEndpoint) bool { return !e.GetDraining() && !silent[e.GetNodeId()] }
	quiet := func(e *dispatcherv1.MeshEndpoint) bool { return !e.GetDraining() && silent[e.GetNodeId()] }
	if !slices.ContainsFunc(svc.GetEndpoints(), takes) || !slices.ContainsFunc(svc.GetEndpoints(), quiet) {
		return svc
	}
	next := proto.CloneOf(svc)
	for _, e := range next.GetEndpoints() {
		e.Draining = e.GetDraining() || silent[e.GetNodeId()]
	}
	return next
}

// placesOn are the tasks of a network that are on certain machines.
func placesOn(n *dispatcherv1.MeshNetwork, nodes map[string]bool) map[string]bool {
	out := map[string]bool{}
	for _, e := range n.GetEntries() {
		if nodes[e.GetNodeId()] {
			out[e.GetTaskId()] = true
		}
	}
	return out
}

// withoutNames are the services of a network that have other tasks beside those.
func withoutNames(d *mesh.Directory, tasks map[string]bool) (out []*dispatcherv1.NetworkService) {
	for svc := range d.InOrder() {
		left := slices.DeleteFunc(slices.Clone(svc.GetEndpoints()), func(e *dispatcherv1.NetworkEndpoint) bool { return tasks[e.GetTaskId()] })
		if len(left) > 0 && len(left) < len(svc.GetEndpoints()) {
			fewer := proto.CloneOf(svc)
			fewer.Endpoints = left
			out = append(out, fewer)
		}
	}
	return out
}
