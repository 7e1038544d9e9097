package mesh

import (
	"maps"
	"slices"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

// Full is the whole of the tables as a message, without version.
func Full(t *Tables) *dispatcherv1.EndpointsResponse {
	return &dispatcherv1.EndpointsResponse{
		Full:           true,
		Services:       sorted(t.Services),
		Machines:       sorted(t.Machines),
		Networks:       sorted(t.Networks),
		DataPort:       t.DataPort,
		MachineNetwork: t.MachineNetwork,
	}
}

// Diff is what leads from old to next, without version; nil if nothing does.
func Diff(old, next *Tables) *dispatcherv1.EndpointsResponse {
	r := &dispatcherv1.EndpointsResponse{DataPort: next.DataPort, MachineNetwork: next.MachineNetwork}
	r.Services, r.RemovedServices = changes(old.Services, next.Services)
	r.Machines, r.RemovedMachines = changes(old.Machines, next.Machines)
	r.Networks, r.RemovedNetworks = changes(old.Networks, next.Networks)
	n := len(r.Services) + len(r.RemovedServices) + len(r.Machines) + len(r.RemovedMachines) +
		len(r.Networks) + len(r.RemovedNetworks)
	if n == 0 && old.DataPort == next.DataPort && old.MachineNetwork == next.MachineNetwork {
		return nil
	}
	return r
}

func changes[M comparable](old, next map[string]M) (changed []M, removed []string) {
	for _, id := range slices.Sorted(maps.Keys(next)) {
		if was, ok := old[id]; !ok || was != next[id] {
			changed = append(changed, next[id])
		}
	}
	for _, id := range slices.Sorted(maps.Keys(old)) {
		if _, ok := next[id]; !ok {
			removed = append(removed, id)
		}
	}
	return changed, removed
}

func sorted[M any](m map[string]M) []M {
	out := make([]M, 0, len(m))
	for _, id := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[id])
	}
	return out
}
