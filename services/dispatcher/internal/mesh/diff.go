package mesh

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

// Full is the whole of the tables as a message, without version.
func Full(t *Tables) *dispatcherv1.EndpointsResponse {
	services, _ := directoryChanges(nil, t.directories)
	return &dispatcherv1.EndpointsResponse{
		Full:            true,
		NetworkServices: services,
		LocalTasks:      sorted(t.local),
		Callers:         sorted(t.callers),
		Services:        sorted(t.Shared.Services),
		Machines:        sorted(t.Shared.Machines),
		Networks:        sorted(t.Networks),
		DataPort:        t.Shared.DataPort,
		MachineNetwork:  t.Shared.MachineNetwork,
		Dataplane:       t.Shared.Dataplane,
		Encryption:      t.Shared.Encryption,
	}
}

// Diff is what leads from old to next, without version; nil if nothing does.
func Diff(old, next *Tables) *dispatcherv1.EndpointsResponse {
	d := differenceOf(old.Shared, next.Shared)
	r := &dispatcherv1.EndpointsResponse{
		Services: d.services, RemovedServices: d.removedServices,
		Machines: d.machines, RemovedMachines: d.removedMachines,
		DataPort: next.Shared.DataPort, MachineNetwork: next.Shared.MachineNetwork, Dataplane: next.Shared.Dataplane,
		Encryption: next.Shared.Encryption,
	}
	r.Networks, r.RemovedNetworks = changes(old.Networks, next.Networks)
	r.NetworkServices, r.RemovedNetworkServices = directoryChanges(old.directories, next.directories)
	r.LocalTasks, r.RemovedLocalTasks = changes(old.local, next.local)
	r.Callers, r.RemovedCallers = changes(old.callers, next.callers)
	own := len(r.Callers) + len(r.RemovedCallers) + len(r.Networks) + len(r.RemovedNetworks) + len(r.LocalTasks) + len(r.RemovedLocalTasks)
	if d.none() && own+len(r.NetworkServices)+len(r.RemovedNetworkServices) == 0 {
		return nil
	}
	return r
}

// difference is what leads from one Shared to another.
type difference struct {
	services                         []*dispatcherv1.MeshService
	machines                         []*dispatcherv1.MeshMachine
	removedServices, removedMachines []string
	settings                         bool // data port, machine network, dataplane or encryption
}

func (d *difference) none() bool {
	return len(d.services)+len(d.machines)+len(d.removedServices)+len(d.removedMachines) == 0 && !d.settings
}

// differenceOf takes what was computed once for all where it can: nearly every machine goes from one Shared to the next.
func differenceOf(old, next *Shared) *difference {
	switch {
	case old == next:
		return &difference{}
	case old.seq+1 == next.seq:
		return &next.since
	}
	return compare(old, next)
}

func compare(old, next *Shared) *difference {
	d := &difference{settings: old.DataPort != next.DataPort || old.MachineNetwork != next.MachineNetwork || old.Dataplane != next.Dataplane ||
		!proto.Equal(old.Encryption, next.Encryption)}
	d.services, d.removedServices = changes(old.Services, next.Services)
	d.machines, d.removedMachines = changes(old.Machines, next.Machines)
	return d
}

// changes lists, in the order of ids, what is new or another message in next, and what is gone.
func changes[M comparable](old, next map[string]M) (changed []M, removed []string) {
	var ids []string
	for id, m := range next {
		if was, ok := old[id]; !ok || was != m {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		changed = append(changed, next[id])
	}
	for id := range old {
		if _, ok := next[id]; !ok {
			removed = append(removed, id)
		}
	}
	slices.Sort(removed)
	return changed, removed
}

func sorted[M any](m map[string]M) []M {
	out := make([]M, 0, len(m))
	for _, id := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[id])
	}
	return out
}
