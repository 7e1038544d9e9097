package mesh

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Shared is the part of the tables that is the same for every machine. It is made from the one before it, in time that
// grows with the number of objects of the kinds that changed, and with new messages only for what changed.
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
	// Dataplane carries connections to ports that do not say it themselves.
	Dataplane typesv1.Dataplane
	// Encryption is of traffic between machines; never nil.
	Encryption *typesv1.Encryption

	networks    map[string]*dispatcherv1.MeshNetwork
	directories map[string]*directory // by network
	callers     map[string]*dispatcherv1.ServiceCallers
	from        sources
	marks       marks
	seq         uint64     // counts the makings
	since       difference // from the one before
}

// sources are the objects that the messages were made from. Objects of a snapshot are never changed, so the same pointers
// make the same message.
type sources struct {
	heard    map[string]bool // machines whose tasks run for all we know: true if they are heard now
	services map[string]made[*typesv1.Service]
	names    map[string]named // services on networks
	networks map[string]made[*typesv1.Network]
	callers  map[string]made[*typesv1.Service] // services that name who may call them, with the tasks that may
	leaving  map[string]*typesv1.Service       // removed, while tasks of theirs stop
	snapshot *state.Snapshot                   // in which it was looked for them
}

type made[T comparable] struct {
	of    T
	tasks []*typesv1.Task
}

func (m made[T]) same(of T, tasks []*typesv1.Task) bool {
	return m.of == of && slices.Equal(m.tasks, tasks)
}

// SharedOf makes the next one. It returns prev itself if nothing in it could have changed: a renewed lease or another
// Member costs nothing.
func SharedOf(s *state.Snapshot, prev *Shared) *Shared {
	if prev == nil {
		prev = &Shared{}
	}
	at := marksOf(s)
	if at == prev.marks {
		return prev
	}
	next := &Shared{
		Version: s.Version(), Services: prev.Services, Machines: prev.Machines,
		networks: prev.networks, directories: prev.directories, callers: prev.callers, from: prev.from,
		DataPort:       s.Cluster().GetDataPath().GetPort(),
		MachineNetwork: s.Cluster().GetDataPath().GetMachineNetwork(),
		Dataplane:      cmp.Or(s.Cluster().GetSpec().GetDataplane(), typesv1.Dataplane_DATAPLANE_KERNEL),
		Encryption:     s.Cluster().GetSpec().GetEncryption(),
		marks:          at,
		seq:            prev.seq + 1,
	}
	if next.Encryption == nil {
		next.Encryption = &typesv1.Encryption{} // said too, or one that was switched off would stay
	}
	sameHeard := true
	if at.nodes != prev.marks.nodes {
		sameHeard = next.makeMachines(s, prev)
	}
	if at.services != prev.marks.services { // who is heard changes nothing about who may call
		next.makeCallers(s, prev)
	}
	if at.services != prev.marks.services || !sameHeard {
		next.makeServices(s, prev, sameHeard)
		next.makeNames(s, prev, sameHeard)
	}
	if at.networks != prev.marks.networks {
		next.makeNetworks(s, prev)
	}
	next.since = *compare(prev, next)
	return next
}

// marks are the versions of the last change of what the parts are made from.
type marks struct{ nodes, services, networks, cluster state.Version }

func marksOf(s *state.Snapshot) marks {
	at := func(kinds ...typesv1.Kind) state.Version {
		v := s.Version()
		v.Revision = s.ChangedAt(kinds...)
		return v
	}
	return marks{
		nodes:    at(typesv1.Kind_KIND_NODE),
		services: at(typesv1.Kind_KIND_SERVICE, typesv1.Kind_KIND_TASK),
		networks: at(typesv1.Kind_KIND_NETWORK, typesv1.Kind_KIND_TASK),
		cluster:  at(typesv1.Kind_KIND_CLUSTER),
	}
}

func (x *Shared) makeServices(s *state.Snapshot, prev *Shared, sameHeard bool) {
	x.Services, x.from.services = map[string]*dispatcherv1.MeshService{}, map[string]made[*typesv1.Service]{}
	for svc := range s.Services() {
		if len(svc.GetEndpoint().GetPorts()) == 0 {
			continue // host ports are among them
		}
		id := svc.GetMeta().GetId()
		old := prev.from.services[id]
		tasks := make([]*typesv1.Task, 0, len(old.tasks))
		for t := range s.TasksOfService(id) {
			tasks = append(tasks, t)
		}
		x.from.services[id] = made[*typesv1.Service]{svc, tasks}
		if sameHeard && old.same(svc, tasks) && x.callers[id] == prev.callers[id] {
			x.Services[id] = prev.Services[id]
			continue
		}
		m := service(svc, tasks, x.from.heard)
		m.Callers = x.callers[id].GetCallers()
		keep(x.Services, prev.Services, id, m)
	}
}

// makeNetworks walks tasks in the order of their ids, so equal states give equal tables.
func (x *Shared) makeNetworks(s *state.Snapshot, prev *Shared) {
	tasks := map[string][]*typesv1.Task{}
	for t := range s.Tasks() {
		if t.GetDecided().GetNodeId() == "" || state.Terminal(t.GetObserved().GetState()) {
			continue
		}
		for _, a := range t.GetDecided().GetAddresses() {
			if id := a.GetNetworkId(); id != "" {
				tasks[id] = append(tasks[id], t)
			}
		}
	}
	x.networks, x.from.networks = map[string]*dispatcherv1.MeshNetwork{}, map[string]made[*typesv1.Network]{}
	for n := range s.Networks() {
		id := n.GetMeta().GetId()
		x.from.networks[id] = made[*typesv1.Network]{n, tasks[id]}
		if prev.from.networks[id].same(n, tasks[id]) {
			x.networks[id] = prev.networks[id]
			continue
		}
		keep(x.networks, prev.networks, id, network(n, tasks[id]))
	}
}

// keep stores the older of two equal messages, so that unchanged ones are known by their pointers.
func keep[M proto.Message](to, from map[string]M, id string, m M) {
	if old, ok := from[id]; ok && proto.Equal(old, m) {
		m = old
	}
	to[id] = m
}
