package mesh

import (
	"iter"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/shards"
)

// Directory is the services of one network by id. It is never changed once made: another pointer is another content.
type Directory struct {
	Services shards.Map[*dispatcherv1.NetworkService]
}

// mergeNames makes new directories of the networks that something changed in, removals first.
func (m *Model) mergeNames(gone []*dispatcherv1.NetworkServiceKey, changed []*dispatcherv1.NetworkService) {
	fresh := map[string]map[string]*dispatcherv1.NetworkService{}
	put := func(network, service string, s *dispatcherv1.NetworkService) {
		if fresh[network] == nil {
			fresh[network] = map[string]*dispatcherv1.NetworkService{}
		}
		fresh[network][service] = s
	}
	for _, k := range gone {
		put(k.GetNetworkId(), k.GetServiceId(), nil)
	}
	for _, s := range changed {
		put(s.GetNetworkId(), s.GetServiceId(), s)
	}
	for network, services := range fresh {
		d := &Directory{}
		if old := m.directories[network]; old != nil {
			d.Services = old.Services
		}
		d.Services = d.Services.With(services)
		if m.directories[network] = d; d.Services.Len() == 0 {
			delete(m.directories, network)
		}
	}
}

// names are all services of all networks, in the order of networks and ids.
func (m *Model) names() []*dispatcherv1.NetworkService {
	var out []*dispatcherv1.NetworkService
	for d := range inOrder(m.directories) {
		for s := range d.Services.InOrder() {
			out = append(out, s)
		}
	}
	return out
}

// Directory is a network's, nil if nothing is known of it.
func (m *Model) Directory(network string) *Directory {
	if m == nil {
		return nil
	}
	return m.directories[network]
}

// Network is an overlay with a task on this machine, nil if there is none of that id.
func (m *Model) Network(id string) *dispatcherv1.MeshNetwork {
	if m == nil {
		return nil
	}
	return m.networks[id]
}

// LocalTasks are this machine's tasks in the order of ids.
func (m *Model) LocalTasks() iter.Seq[*dispatcherv1.LocalTask] {
	if m == nil {
		return func(func(*dispatcherv1.LocalTask) bool) {}
	}
	return inOrder(m.local)
}

// LocalTask is one of them, nil if it is not this machine's.
func (m *Model) LocalTask(id string) *dispatcherv1.LocalTask {
	if m == nil {
		return nil
	}
	return m.local[id]
}

// InOrder are a directory's services in the order of ids.
func (d *Directory) InOrder() iter.Seq[*dispatcherv1.NetworkService] { return d.Services.InOrder() }

// Networks are the overlays with a task on this machine, by id.
func (m *Model) Networks() map[string]*dispatcherv1.MeshNetwork {
	if m == nil {
		return nil
	}
	return m.networks
}
