package mesh

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

// Without is the model in which no new connection is led to the named machines: their tasks stand behind a service only if
// no other does. Connections that are there go on, as with a task that drains.
func (m *Model) Without(silent map[string]bool) *Model {
	if m == nil || len(silent) == 0 {
		return m
	}
	next := *m
	next.services, next.directories = maps.Clone(m.services), maps.Clone(m.directories)
	for id, svc := range m.services {
		next.services[id] = withoutEndpoints(svc, silent)
	}
	for network, d := range m.directories {
		next.directories[network] = withoutNames(d, placesOn(m.networks[network], silent))
	}
	return &next
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

// withoutNames is the directory itself if nothing is to be left out.
func withoutNames(d *Directory, tasks map[string]bool) *Directory {
	if len(tasks) == 0 {
		return d
	}
	next := &Directory{Services: maps.Clone(d.Services)}
	changed := false
	for id, svc := range d.Services {
		left := slices.DeleteFunc(slices.Clone(svc.GetEndpoints()), func(e *dispatcherv1.NetworkEndpoint) bool { return tasks[e.GetTaskId()] })
		if len(left) == 0 || len(left) == len(svc.GetEndpoints()) {
			continue
		}
		changed = true
		fewer := proto.CloneOf(svc)
		fewer.Endpoints = left
		next.Services[id] = fewer
	}
	if !changed {
		return d
	}
	return next
}
