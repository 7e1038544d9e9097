// Package mesh says what a machine's data path should be: which ports answer and who stands behind them, and which links,
// addresses, routes, entries and rules the kernel should have.
//
// It owns the model that the dispatcher's stream builds up (Model), and what follows from it for this machine (Publish,
// Desired). It is pure: no kernel, no socket, no clock. A
// Model is immutable once made, so it is safe for concurrent use.
package mesh

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/shards"
)

// Model is what the dispatcher has said of the mesh so far, at one version. Its messages are never changed.
type Model struct {
	version        *typesv1.Version
	dataPort       uint32
	machineNetwork string
	services       shards.Map[*dispatcherv1.MeshService]
	machines       map[string]*dispatcherv1.MeshMachine
	networks       map[string]*dispatcherv1.MeshNetwork
	directories    map[string]*Directory // by network
	local          map[string]*dispatcherv1.LocalTask
	callers        map[string]*dispatcherv1.ServiceCallers // by service
	dataplane      typesv1.Dataplane
	encryption     *typesv1.Encryption
	// owners are the services that published ports belong to; disputed says that one is claimed twice.
	owners   map[Listener]string
	disputed bool
	era      *era
}

// Apply makes the model after a response: the whole, or a difference to m. M may be nil, and stays as it is. A difference
// without a whole before it, and a version that goes back within its epoch or to a lower epoch, are refused: they would
// bring back tasks that have left.
func (m *Model) Apply(r *dispatcherv1.EndpointsResponse) (*Model, error) {
	if r.GetVersion() == nil {
		return nil, errs.New(errs.Invalid, "the tables have no version; the dispatcher must send one")
	}
	if m != nil && older(r.GetVersion(), m.version) {
		return nil, errs.New(errs.Conflict, "tables of version %s are older than %s, which is in force; another dispatcher may be further",
			Text(r.GetVersion()), Text(m.version))
	}
	next := &Model{
		version:        r.GetVersion(),
		dataPort:       r.GetDataPort(),
		machineNetwork: r.GetMachineNetwork(),
		dataplane:      r.GetDataplane(),
		encryption:     r.GetEncryption(),
		machines:       map[string]*dispatcherv1.MeshMachine{},
		networks:       map[string]*dispatcherv1.MeshNetwork{},
		directories:    map[string]*Directory{},
		local:          map[string]*dispatcherv1.LocalTask{},
		callers:        map[string]*dispatcherv1.ServiceCallers{},
	}
	switch {
	case r.GetFull():
	case m == nil || !proto.Equal(m.version.GetEpoch(), r.GetVersion().GetEpoch()):
		return nil, errs.New(errs.Invalid, "a difference of the tables came before the whole of its epoch; open the stream again")
	default:
		next.services, next.machines, next.networks = m.services, maps.Clone(m.machines), maps.Clone(m.networks)
		next.directories, next.local, next.callers = maps.Clone(m.directories), maps.Clone(m.local), maps.Clone(m.callers)
		if next.dataPort == 0 {
			next.dataPort = m.dataPort
		}
		if next.machineNetwork == "" {
			next.machineNetwork = m.machineNetwork
		}
		if next.dataplane == typesv1.Dataplane_DATAPLANE_UNSPECIFIED {
			next.dataplane = m.dataplane
		}
		if next.encryption == nil {
			next.encryption = m.encryption
		}
	}
	next.own(m, r)
	services := map[string]*dispatcherv1.MeshService{}
	for _, id := range r.GetRemovedServices() {
		services[id] = nil
	}
	merge(services, nil, r.GetServices())
	next.services = next.services.With(services)
	merge(next.machines, r.GetRemovedMachines(), r.GetMachines())
	merge(next.networks, r.GetRemovedNetworks(), r.GetNetworks())
	merge(next.local, r.GetRemovedLocalTasks(), r.GetLocalTasks())
	merge(next.callers, r.GetRemovedCallers(), r.GetCallers())
	next.mergeNames(r.GetRemovedNetworkServices(), r.GetNetworkServices())
	if next.era == nil || next.disputed {
		next.claim(next.services.InOrder())
		next.era = &era{addresses: know(next.machines), homes: homes(next.machines)}
	}
	return next, nil
}

// own keeps who owns the published ports over a response, as long as nobody claims one that another has. Without an era
// all of it is to be made anew.
func (m *Model) own(old *Model, r *dispatcherv1.EndpointsResponse) {
	if old == nil || r.GetFull() || old.disputed || old.dataplane != m.dataplane || !proto.Equal(old.encryption, m.encryption) || len(r.GetMachines())+len(r.GetRemovedMachines()) > 0 {
		return
	}
	m.era, m.owners = old.era, old.owners
	if !old.movesPorts(r) {
		return // most changes are of tasks alone, and the owners may be many
	}
	m.owners = maps.Clone(old.owners)
	drop := func(svc *dispatcherv1.MeshService) {
		for _, l := range listenersOf(svc) {
			delete(m.owners, l)
		}
	}
	for _, id := range r.GetRemovedServices() {
		drop(old.services.Get(id))
	}
	for _, svc := range r.GetServices() {
		drop(old.services.Get(svc.GetServiceId()))
	}
	m.claim(slices.Values(r.GetServices()))
}

// movesPorts says that a response gives a port to a service or takes one away.
func (m *Model) movesPorts(r *dispatcherv1.EndpointsResponse) bool {
	return len(r.GetRemovedServices()) > 0 || slices.ContainsFunc(r.GetServices(), func(svc *dispatcherv1.MeshService) bool {
		return !slices.Equal(listenersOf(svc), listenersOf(m.services.Get(svc.GetServiceId())))
	})
}

// claim gives each port to the first that claims it.
func (m *Model) claim(services iter.Seq[*dispatcherv1.MeshService]) {
	if m.era == nil || m.disputed {
		m.owners, m.disputed = map[Listener]string{}, false
	}
	for svc := range services {
		for _, l := range listenersOf(svc) {
			if holder, taken := m.owners[l]; taken && holder != svc.GetServiceId() {
				m.disputed = true
				continue
			}
			m.owners[l] = svc.GetServiceId()
		}
	}
}

// listenersOf are the ports on which every machine answers for a service.
func listenersOf(svc *dispatcherv1.MeshService) []Listener {
	var out []Listener
	for _, pc := range svc.GetPorts() {
		network, ok := networkOf(pc.GetProtocol())
		if mode := pc.GetPublishMode(); ok && mode != typesv1.PublishMode_PUBLISH_MODE_HOST {
			out = append(out, Listener{network, uint16(pc.GetPublishedPort())})
		}
	}
	return out
}

// keyed is what the parts of the tables have in common.
type keyed interface {
	*dispatcherv1.MeshService | *dispatcherv1.MeshMachine | *dispatcherv1.MeshNetwork | *dispatcherv1.LocalTask |
		*dispatcherv1.ServiceCallers
}

// merge removes before it puts: what is in both lists of one response has come back.
func merge[T keyed](into map[string]T, gone []string, changed []T) {
	for _, id := range gone {
		delete(into, id)
	}
	for _, v := range changed {
		into[keyOf(v)] = v
	}
}

func keyOf(v any) string {
	switch v := v.(type) {
	case *dispatcherv1.MeshService:
		return v.GetServiceId()
	case *dispatcherv1.MeshMachine:
		return v.GetNodeId()
	case *dispatcherv1.MeshNetwork:
		return v.GetNetworkId()
	case *dispatcherv1.LocalTask:
		return v.GetTaskId()
	case *dispatcherv1.ServiceCallers:
		return v.GetServiceId()
	}
	return ""
}

// Version is what the model was built from; nil for a nil model.
func (m *Model) Version() *typesv1.Version {
	if m == nil {
		return nil
	}
	return m.version
}

// Has says that a task runs behind some service.
func (m *Model) Has(task string) bool {
	for _, svc := range m.services.All() {
		for _, e := range svc.GetEndpoints() {
			if e.GetTaskId() == task {
				return true
			}
		}
	}
	return false
}

// Whole is the model as one full response, in id order, for the file of last known tables.
func (m *Model) Whole() *dispatcherv1.EndpointsResponse {
	return &dispatcherv1.EndpointsResponse{
		Version: m.version, Full: true, DataPort: m.dataPort, MachineNetwork: m.machineNetwork, Dataplane: m.dataplane, Encryption: m.encryption,
		Services:        slices.Collect(m.services.InOrder()),
		Machines:        slices.Collect(inOrder(m.machines)),
		Networks:        slices.Collect(inOrder(m.networks)),
		NetworkServices: m.names(), LocalTasks: slices.Collect(inOrder(m.local)), Callers: slices.Collect(inOrder(m.callers)),
	}
}

// inOrder walks a map in key order, so that what follows from a model never depends on chance.
func inOrder[T any](in map[string]T) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, k := range slices.Sorted(maps.Keys(in)) {
			if !yield(in[k]) {
				return
			}
		}
	}
}

// older compares within an epoch, and epochs by number. Another epoch of the same number is another history, and neither
// older nor newer: the one that the cluster speaks of now is taken.
func older(a, b *typesv1.Version) bool {
	if a.GetEpoch().GetNumber() != b.GetEpoch().GetNumber() {
		return a.GetEpoch().GetNumber() < b.GetEpoch().GetNumber()
	}
	return a.GetEpoch().GetNonce() == b.GetEpoch().GetNonce() && a.GetRevision() < b.GetRevision()
}

// Text is a version for people: epoch number and revision.
func Text(v *typesv1.Version) string {
	return fmt.Sprintf("%d.%d", v.GetEpoch().GetNumber(), v.GetRevision())
}
