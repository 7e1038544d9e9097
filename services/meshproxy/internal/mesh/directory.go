package mesh

import (
	"iter"
	"maps"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

// Directory is the services of one network by id. It is never changed once made: another pointer is another content.
type Directory struct {
	Services map[string]*dispatcherv1.NetworkService
}

// mergeNames makes new directories of the networks that something changed in, removals first.
func (m *Model) mergeNames(gone []*dispatcherv1.NetworkServiceKey, changed []*dispatcherv1.NetworkService) {
	fresh := map[string]*Directory{}
	of := func(network string) *Directory {
		d := fresh[network]
		if d == nil {
			d = &Directory{Services: map[string]*dispatcherv1.NetworkService{}}
			if old := m.directories[network]; old != nil {
				maps.Copy(d.Services, old.Services)
			}
			fresh[network] = d
		}
		return d
	}
	for _, k := range gone {
		delete(of(k.GetNetworkId()).Services, k.GetServiceId())
	}
	for _, s := range changed {
		of(s.GetNetworkId()).Services[s.GetServiceId()] = s
	}
	for network, d := range fresh {
		if m.directories[network] = d; len(d.Services) == 0 {
			delete(m.directories, network)
		}
	}
}

// names are all services of all networks, in the order of networks and ids.
func (m *Model) names() []*dispatcherv1.NetworkService {
	var out []*dispatcherv1.NetworkService
	for d := range inOrder(m.directories) {
		for s := range inOrder(d.Services) {
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
func (d *Directory) InOrder() iter.Seq[*dispatcherv1.NetworkService] { return inOrder(d.Services) }

// Networks are the overlays with a task on this machine, by id.
func (m *Model) Networks() map[string]*dispatcherv1.MeshNetwork {
	if m == nil {
		return nil
	}
	return m.networks
}
