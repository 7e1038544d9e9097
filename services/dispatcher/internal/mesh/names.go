package mesh

import (
	"cmp"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// directory is the services of one network by id. It is never changed once made, so equal ones are known by their pointers.
type directory struct {
	services map[string]*dispatcherv1.NetworkService
}

// makeNames makes the directories of all networks; what has not changed keeps its pointers.
func (x *Shared) makeNames(s *state.Snapshot, prev *Shared, sameReady bool) {
	x.from.names = map[string]named{}
	next := map[string]*directory{}
	for svc := range s.Services() {
		id := svc.GetMeta().GetId()
		old := prev.from.names[id]
		if len(svc.GetSpec().GetTask().GetNetworks())+len(svc.GetEndpoint().GetVirtualIps())+len(old.on) == 0 {
			continue // it is on no network
		}
		tasks := make([]*typesv1.Task, 0, len(old.tasks))
		for t := range s.TasksOfService(id) {
			tasks = append(tasks, t)
		}
		n := named{made: made[*typesv1.Service]{svc, tasks}, on: old.on}
		if !sameReady || !old.same(svc, tasks) {
			n.on = namesOf(svc, tasks, x.from.heard, old.on)
		}
		if len(n.on) == 0 {
			continue
		}
		x.from.names[id] = n
		for _, m := range n.on {
			d := next[m.GetNetworkId()]
			if d == nil {
				d = &directory{services: map[string]*dispatcherv1.NetworkService{}}
				next[m.GetNetworkId()] = d
			}
			d.services[id] = m
		}
	}
	for network, d := range next {
		if old := prev.directories[network]; old != nil && maps.Equal(old.services, d.services) {
			next[network] = old
		}
	}
	x.directories = next
}

// named is what a service's messages were made from, and the messages: one a network.
type named struct {
	made[*typesv1.Service]
	on []*dispatcherv1.NetworkService
}

// namesOf makes a service's messages in the order of its networks, and keeps an old one that is equal. A service is on the
// networks of its spec, and for as long as tasks of an earlier spec serve on theirs.
func namesOf(svc *typesv1.Service, tasks []*typesv1.Task, ready map[string]bool, old []*dispatcherv1.NetworkService) []*dispatcherv1.NetworkService {
	var out []*dispatcherv1.NetworkService
	on := func(network string) *dispatcherv1.NetworkService {
		at := slices.IndexFunc(out, func(m *dispatcherv1.NetworkService) bool { return m.GetNetworkId() == network })
		if at < 0 {
			out = append(out, &dispatcherv1.NetworkService{
				NetworkId: network, ServiceId: svc.GetMeta().GetId(), Name: svc.GetSpec().GetAnnotations().GetName(), Counted: counted(svc),
			})
			at = len(out) - 1
		}
		return out[at]
	}
	for _, a := range svc.GetSpec().GetTask().GetNetworks() {
		on(a.GetTarget()).Aliases = a.GetAliases()
	}
	for _, v := range svc.GetEndpoint().GetVirtualIps() {
		on(v.GetNetworkId()).Vips = bare(v.GetAddresses())
	}
	for _, t := range tasks {
		if !takesTraffic(t) || !ready[t.GetDecided().GetNodeId()] {
			continue
		}
		for _, a := range t.GetDecided().GetAddresses() {
			if a.GetNetworkId() == "" {
				continue
			}
			m := on(a.GetNetworkId())
			m.Endpoints = append(m.Endpoints, &dispatcherv1.NetworkEndpoint{
				TaskId: t.GetMeta().GetId(), Slot: t.GetDecided().GetSlot(), Addresses: bare(a.GetAddresses()),
			})
		}
	}
	for i, m := range out {
		slices.SortFunc(m.Endpoints, func(a, b *dispatcherv1.NetworkEndpoint) int {
			return cmp.Or(cmp.Compare(a.GetSlot(), b.GetSlot()), cmp.Compare(a.GetTaskId(), b.GetTaskId()))
		})
		for _, o := range old {
			if proto.Equal(o, m) {
				out[i] = o
			}
		}
	}
	return out
}

// localTask is a task as its own machine's meshproxy sees it. An equal one that was made before is kept.
func localTask(s *state.Snapshot, t *typesv1.Task, old *dispatcherv1.LocalTask) *dispatcherv1.LocalTask {
	spec := state.SpecOf(s.Service(t.GetServiceId()), t.GetSpecVersion())
	m := &dispatcherv1.LocalTask{
		TaskId: t.GetMeta().GetId(), ServiceId: t.GetServiceId(), Nameservers: spec.GetContainer().GetDnsConfig().GetNameservers(),
	}
	for _, a := range t.GetDecided().GetAddresses() {
		if a.GetNetworkId() == "" {
			m.Addresses = append(m.Addresses, bare(a.GetAddresses())...)
			continue
		}
		m.NetworkIds = append(m.NetworkIds, a.GetNetworkId())
	}
	if proto.Equal(m, old) {
		return old
	}
	return m
}

// directoryChanges lists what leads from the directories of one machine to those of another time, in the order of networks.
func directoryChanges(old, next map[string]*directory) (changed []*dispatcherv1.NetworkService, removed []*dispatcherv1.NetworkServiceKey) {
	none := &directory{}
	networks := slices.Collect(maps.Keys(old))
	networks = slices.AppendSeq(networks, maps.Keys(next))
	slices.Sort(networks)
	for _, network := range slices.Compact(networks) {
		a, b := cmp.Or(old[network], none), cmp.Or(next[network], none)
		if a == b {
			continue
		}
		c, gone := changes(a.services, b.services)
		changed = append(changed, c...)
		for _, id := range gone {
			removed = append(removed, &dispatcherv1.NetworkServiceKey{NetworkId: network, ServiceId: id})
		}
	}
	return changed, removed
}
