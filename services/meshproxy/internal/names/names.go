// Package names says what a name means to a container: which addresses, and whether it is the cluster's at all.
//
// It owns the rules of docs/reference/networks.md. A container is known by its address on the machine network and is told
// of the networks that it is on, of nothing else. It is pure: no socket, no clock. A View is immutable once made, so it is
// safe for concurrent use; what has not changed is shared with the one before.
package names

import (
	"net/netip"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// View is what the containers of this machine can ask.
type View struct {
	clients  map[netip.Addr]*Client
	networks map[string]*network
}

// Client is a container of this machine.
type Client struct {
	// Task is its id.
	Task string
	// Nameservers answer it for what is not the cluster's, in order. None: the machine's.
	Nameservers []netip.Addr
	// Internal says that all its networks are without a way out: nothing is asked outside for it.
	Internal bool

	networks []*network // in the order of the task's
}

// Of makes the view of a model. Prev may be nil.
func Of(m *mesh.Model, prev *View) *View {
	if prev == nil {
		prev = &View{}
	}
	v := &View{clients: map[netip.Addr]*Client{}, networks: map[string]*network{}}
	for task := range m.LocalTasks() {
		c := &Client{Task: task.GetTaskId(), Nameservers: addresses(task.GetNameservers())}
		outside := len(task.GetNetworkIds()) == 0
		for _, id := range task.GetNetworkIds() {
			n := v.networks[id]
			if n == nil {
				n = networkOf(m.Network(id), m.Directory(id), prev.networks[id])
				v.networks[id] = n
			}
			c.networks = append(c.networks, n)
			outside = outside || !n.internal
		}
		c.Internal = !outside
		for _, a := range addresses(task.GetAddresses()) {
			v.clients[a] = c
		}
	}
	return v
}

// Client is the container with an address on the machine network; nil if this machine has none.
func (v *View) Client(source netip.Addr) *Client {
	if v == nil {
		return nil
	}
	return v.clients[source.Unmap()]
}

// addresses leaves out what is none: the tables come from a store that has checked them, and one bad line must not take
// all names away.
func addresses(texts []string) []netip.Addr {
	out := make([]netip.Addr, 0, len(texts))
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// network is what is known of one, by every key that can be asked for.
type network struct {
	id, name string
	internal bool
	from     *mesh.Directory
	meta     *dispatcherv1.MeshNetwork

	services map[string][]*service // by name and alias, in lower case
	tasks    map[string]*endpoint  // by id and by short id
	owners   map[netip.Addr]string // whose address it is: a name that leads back to it
	subnets  []netip.Prefix
}

type service struct {
	name      string
	vips      []netip.Addr
	endpoints []*endpoint
}

type endpoint struct {
	name      string // that leads to it
	slot      uint64
	addresses []netip.Addr
}

// networkOf indexes a network; prev is taken if nothing has changed.
func networkOf(meta *dispatcherv1.MeshNetwork, d *mesh.Directory, prev *network) *network {
	if prev != nil && prev.meta == meta && prev.from == d {
		return prev
	}
	n := &network{
		id: meta.GetNetworkId(), name: fold(meta.GetName()), internal: meta.GetInternal(), from: d, meta: meta,
		services: map[string][]*service{}, tasks: map[string]*endpoint{}, owners: map[netip.Addr]string{},
	}
	for _, text := range meta.GetSubnets() {
		if p, err := netip.ParsePrefix(text); err == nil {
			n.subnets = append(n.subnets, p.Masked())
		}
	}
	if d == nil {
		return n
	}
	for s := range d.InOrder() {
		n.add(s)
	}
	return n
}

func (n *network) add(m *dispatcherv1.NetworkService) {
	s := &service{name: fold(m.GetName()), vips: addresses(m.GetVips())}
	for _, e := range m.GetEndpoints() {
		ep := &endpoint{slot: e.GetSlot(), addresses: addresses(e.GetAddresses()), name: short(e.GetTaskId())}
		if ep.slot != 0 {
			ep.name = slotName(ep.slot, s.name)
		}
		s.endpoints = append(s.endpoints, ep)
		n.tasks[fold(e.GetTaskId())], n.tasks[short(e.GetTaskId())] = ep, ep
		for _, a := range ep.addresses {
			n.owners[a] = ep.name
		}
	}
	for _, a := range s.vips {
		n.owners[a] = s.name
	}
	n.services[s.name] = append(n.services[s.name], s)
	for _, alias := range m.GetAliases() {
		if alias = fold(alias); alias != s.name {
			n.services[alias] = append(n.services[alias], s)
		}
	}
}

// Empty says that nobody can ask.
func (v *View) Empty() bool { return v == nil || len(v.clients) == 0 }
