// Package mesh computes the tables that meshproxies need from a snapshot, and the difference between two of them.
//
// It owns the answer to "who takes traffic", by port, by virtual address and by name: a task that is wanted, running and
// ready on a machine that is heard. One that runs without that is told as draining, as long as it may have connections. Entries
// of overlays exist earlier, from the moment a task has a machine, so that an early dial leaves no failed neighbour
// behind. It is pure: no clock, no I/O, no goroutine.
package mesh

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Tables is what one machine connects. Messages in it are never changed once made.
type Tables struct {
	// Shared is the same for every machine.
	Shared *Shared
	// Networks with a task on this machine, by id.
	Networks map[string]*dispatcherv1.MeshNetwork

	directories map[string]*directory              // of these networks
	local       map[string]*dispatcherv1.LocalTask // this machine's tasks, by id
	callers     map[string]*dispatcherv1.ServiceCallers
}

// Of computes one machine's tables. What has not changed since another Shared of the same line, or since the machine's last
// tables (nil: none), has the same pointers.
func Of(s *state.Snapshot, nodeID string, shared *Shared, last *Tables) *Tables {
	t := &Tables{
		Shared: shared, Networks: map[string]*dispatcherv1.MeshNetwork{},
		directories: map[string]*directory{}, local: map[string]*dispatcherv1.LocalTask{},
	}
	if last == nil {
		last = &Tables{}
	}
	for task := range s.TasksOfNode(nodeID) {
		if state.Terminal(task.GetObserved().GetState()) {
			continue
		}
		id := task.GetMeta().GetId()
		t.local[id] = localTask(s, task, last.local[id])
		for _, network := range t.local[id].GetNetworkIds() {
			if n := shared.networks[network]; n != nil {
				t.Networks[network] = n
			}
			if d := shared.directories[network]; d != nil {
				t.directories[network] = d
			}
		}
	}
	t.callers = callersOf(t.local, shared)
	return t
}

func machine(n *typesv1.Node) *dispatcherv1.MeshMachine {
	return &dispatcherv1.MeshMachine{
		NodeId:    n.GetMeta().GetId(),
		Addresses: n.GetStatus().GetAddresses(),
		Vteps:     n.GetStatus().GetVteps(),
		Blocks:    n.GetBlocks(),
		MeshPort:  n.GetStatus().GetMeshPort(),
		Dataplane: n.GetStatus().GetDescription().GetDataplane(),

		TunnelKeys:   n.GetStatus().GetDescription().GetTunnelKeys(),
		OwnAddresses: n.GetStatus().GetDescription().GetOwnAddresses(),
	}
}

// service makes a service from its tasks. Heard are the machines whose tasks run for all we know; true: they are heard.
func service(svc *typesv1.Service, tasks []*typesv1.Task, heard map[string]bool) *dispatcherv1.MeshService {
	m := &dispatcherv1.MeshService{
		ServiceId: svc.GetMeta().GetId(),
		Name:      svc.GetSpec().GetAnnotations().GetName(),
		Ports:     svc.GetEndpoint().GetPorts(),
		Counted:   counted(svc),
	}
	for _, t := range tasks {
		now, known := heard[t.GetDecided().GetNodeId()]
		if !known || !mayHaveTraffic(t) {
			continue
		}
		m.Endpoints = append(m.Endpoints, &dispatcherv1.MeshEndpoint{
			TaskId:    t.GetMeta().GetId(),
			NodeId:    t.GetDecided().GetNodeId(),
			Slot:      t.GetDecided().GetSlot(),
			Addresses: bare(addressOn(t, "")),
			Draining:  !now || !takesTraffic(t),
			HostPorts: t.GetDecided().GetHostPorts(),
		})
	}
	slices.SortFunc(m.Endpoints, func(a, b *dispatcherv1.MeshEndpoint) int {
		return cmp.Or(cmp.Compare(a.GetSlot(), b.GetSlot()), cmp.Compare(a.GetTaskId(), b.GetTaskId()))
	})
	return m
}

// counted says that the scheduler asks how many connections a service gets.
func counted(svc *typesv1.Service) bool { return svc.GetSpec().GetAutoscale().GetConnections() > 0 }

// mayHaveTraffic says that a task runs, and may have connections although it takes no new ones.
func mayHaveTraffic(t *typesv1.Task) bool {
	return t.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_RUNNING && !t.GetDecided().GetAbandoned()
}

func takesTraffic(t *typesv1.Task) bool {
	d, o := t.GetDecided(), t.GetObserved()
	return d.GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && !d.GetAbandoned() &&
		o.GetState() == typesv1.TaskState_TASK_STATE_RUNNING && o.GetReady()
}

// network makes an overlay with an entry for each task that has a machine and an address on it.
func network(n *typesv1.Network, tasks []*typesv1.Task) *dispatcherv1.MeshNetwork {
	m := &dispatcherv1.MeshNetwork{
		NetworkId: n.GetMeta().GetId(),
		Name:      n.GetSpec().GetAnnotations().GetName(),
		Vni:       n.GetIpam().GetVni(),
		Subnets:   n.GetIpam().GetSubnets(),
		Internal:  n.GetSpec().GetInternal(),
		Mtu:       n.GetSpec().GetMtu(),
		Encrypted: n.GetSpec().GetEncrypted(),
	}
	for _, t := range tasks {
		m.Entries = append(m.Entries, &dispatcherv1.NetworkEntry{
			TaskId:    t.GetMeta().GetId(),
			NodeId:    t.GetDecided().GetNodeId(),
			Addresses: bare(addressOn(t, m.GetNetworkId())),
		})
	}
	return m
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
