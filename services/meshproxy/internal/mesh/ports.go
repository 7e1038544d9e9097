package mesh

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Listener names a published port: "tcp" or "udp", and the port on every machine.
type Listener struct {
	Network string
	Port    uint16
}

// String is "tcp/30000".
func (l Listener) String() string { return l.Network + "/" + strconv.Itoa(int(l.Port)) }

// Port is a published port and who stands behind it.
type Port struct {
	Listener
	// Service is its name.
	Service string
	// Backends are the tasks that take its traffic, in slot order.
	Backends []Backend
	// Bind are the addresses of this machine on which it answers. Nil: all; empty: none.
	Bind []netip.Addr
	// Refused says that nothing may answer: a balancer before the cluster must see that no task is here.
	Refused bool
	// Affinity leads all connections of one client address to one task.
	Affinity bool
	// UserSpace says that the kernel does not carry it.
	UserSpace bool
	// Proxy says that a task is told its client by PROXY protocol, version 2.
	Proxy bool
	// Callers are the client addresses that it takes. Nil: all.
	Callers *Callers
	// Count is the id of the service for which its connections are counted; empty: they are not.
	Count string
}

// Backend is a task behind a port.
type Backend struct {
	// Task and Node are ids.
	Task, Node string
	// Address is the task's, on the machine network, with the port in the container: IPv4 if it has both.
	Address netip.AddrPort
	// Address6 is the IPv6 one of a task that has both.
	Address6 netip.AddrPort
}

// For is the address by which a client of a family is led to it: of the client's own family, where it has that.
func (b Backend) For(is4 bool) netip.AddrPort {
	if at, ok := b.of(is4); ok {
		return at
	}
	return b.Address
}

// of is the backend's address of a family.
func (b Backend) of(is4 bool) (netip.AddrPort, bool) {
	switch {
	case b.Address.Addr().Is4() == is4:
		return b.Address, true
	case !is4 && b.Address6.IsValid():
		return b.Address6, true
	}
	return netip.AddrPort{}, false
}

// portsOf lists a service's ports as this machine serves them. Owner says whether a port is the service's.
func (m *Model) portsOf(svc *dispatcherv1.MeshService, self Self, faults *faults) []Port {
	where := "service " + svc.GetName()
	backends, callers := backendsOf(svc, self, where, faults), readCallers(svc.GetCallers())
	var out []Port
	for _, pc := range svc.GetPorts() {
		mode := pc.GetPublishMode()
		if mode != typesv1.PublishMode_PUBLISH_MODE_UNSPECIFIED && mode != typesv1.PublishMode_PUBLISH_MODE_INGRESS {
			continue // host ports are the tasks'; others are of a newer cluster
		}
		p, ok := m.portOf(svc, pc, callers, self, where, faults)
		if !ok {
			continue
		}
		if holder := m.owners[p.Listener]; holder != svc.GetServiceId() {
			faults.add(where, "port %s is service %q's already", p.Listener, m.services.Get(holder).GetName())
			continue
		}
		p.lead(pc, backends, self)
		p.UserSpace = p.UserSpace || m.beyondKernel(p.Backends, self) || m.beyondSeal(p.Backends, self)
		out = append(out, p)
	}
	for _, e := range svc.GetEndpoints() {
		if e.GetNodeId() == self.Node {
			out = append(out, m.hostPorts(svc, e, callers, self, where, faults)...)
		}
	}
	return out
}

// lead chooses among the service's tasks as the port's policy says.
func (p *Port) lead(pc *typesv1.PortConfig, backends []*dispatcherv1.MeshEndpoint, self Self) {
	var all, here []Backend
	for _, e := range backends {
		b := backendOf(e, uint16(pc.GetTargetPort()))
		all = append(all, b)
		if b.Node == self.Node {
			here = append(here, b)
		}
	}
	p.Backends = all
	switch pc.GetTrafficPolicy() {
	case typesv1.TrafficPolicy_TRAFFIC_POLICY_LOCAL:
		p.Backends, p.Refused = here, len(here) == 0
	case typesv1.TrafficPolicy_TRAFFIC_POLICY_PREFER_LOCAL:
		if len(here) > 0 {
			p.Backends = here
		}
	}
}

// beyondKernel says that a task is on another machine whose kernel has no end of the tunnel: then a connection must go from
// meshproxy to meshproxy.
func (m *Model) beyondKernel(backends []Backend, self Self) bool {
	return slices.ContainsFunc(backends, func(b Backend) bool {
		return b.Node != self.Node && m.machines[b.Node].GetDataplane() == typesv1.Dataplane_DATAPLANE_USERSPACE
	})
}

// hostPorts are those of a task of this machine, which answers on them alone.
func (m *Model) hostPorts(svc *dispatcherv1.MeshService, e *dispatcherv1.MeshEndpoint, callers *Callers, self Self, where string, faults *faults) []Port {
	var out []Port
	for _, pc := range e.GetHostPorts() {
		p, ok := m.portOf(svc, pc, callers, self, where, faults)
		if !ok || e.GetDraining() || self.Withdrawn[e.GetTaskId()] || wrong(e) != "" {
			continue
		}
		p.Backends = []Backend{backendOf(e, uint16(pc.GetTargetPort()))}
		out = append(out, p)
	}
	return out
}

// backendsOf lists the tasks that take new connections, in slot order.
func backendsOf(svc *dispatcherv1.MeshService, self Self, where string, faults *faults) []*dispatcherv1.MeshEndpoint {
	var out []*dispatcherv1.MeshEndpoint
	for _, e := range svc.GetEndpoints() {
		if text := wrong(e); text != "" {
			faults.add(where, "task %s: %s", e.GetTaskId(), text)
		} else if !e.GetDraining() && !self.Withdrawn[e.GetTaskId()] {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *dispatcherv1.MeshEndpoint) int {
		return cmp.Or(cmp.Compare(a.GetSlot(), b.GetSlot()), cmp.Compare(a.GetTaskId(), b.GetTaskId()))
	})
	return out
}

// portOf is one published port; ok is false for one that is not the mesh's, or is wrong.
func (m *Model) portOf(svc *dispatcherv1.MeshService, pc *typesv1.PortConfig, callers *Callers, self Self, where string, faults *faults) (p Port, ok bool) {
	network, ok := networkOf(pc.GetProtocol())
	if !ok {
		return Port{}, false // of a newer cluster: others serve it
	}
	published, target := pc.GetPublishedPort(), pc.GetTargetPort()
	if published < 1 || published > 65535 || target < 1 || target > 65535 {
		faults.add(where, "port %d to %d is not between 1 and 65535", published, target)
		return Port{}, false
	}
	p = Port{
		Listener: Listener{network, uint16(published)}, Service: svc.GetName(),
		Affinity: pc.GetSessionAffinity() == typesv1.SessionAffinity_SESSION_AFFINITY_CLIENT_IP, Callers: callers,
	}
	if svc.GetCounted() {
		p.Count = svc.GetServiceId()
	}
	plane := cmp.Or(pc.GetDataplane(), m.dataplane)
	p.Proxy = pc.GetProxyProtocol() && network == "tcp"
	// The kernel passes packets on and writes none.
	p.UserSpace = plane == typesv1.Dataplane_DATAPLANE_USERSPACE || self.UserSpace || p.Proxy
	if text := pc.GetHostIp(); text != "" {
		if p.Bind, ok = bindOf(text, self.Local); !ok {
			faults.add(where, "port %s: host_ip %q is not an IP address or a CIDR", p.Listener, text)
		}
	}
	return p, ok
}

// bindOf lists the machine's addresses that match an address or range. Nil for one that matches all there are.
func bindOf(text string, local []netip.Addr) ([]netip.Addr, bool) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, false
		}
		if a.IsUnspecified() {
			return nil, true
		}
		prefix = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
	}
	out := []netip.Addr{}
	for _, a := range local {
		if prefix.Contains(a) {
			out = append(out, a)
		}
	}
	return out, true
}

// wrong says what is wrong with an endpoint's addresses, or nothing.
func wrong(e *dispatcherv1.MeshEndpoint) string {
	if len(e.GetAddresses()) == 0 {
		return "has no address"
	}
	for _, text := range e.GetAddresses() {
		if _, err := netip.ParseAddr(text); err != nil {
			return strconv.Quote(text) + " is not an IP address"
		}
	}
	return ""
}

// backendOf is a task whose addresses are right. The first address is its main one; a second counts if it is of IPv6.
func backendOf(e *dispatcherv1.MeshEndpoint, target uint16) Backend {
	b := Backend{Task: e.GetTaskId(), Node: e.GetNodeId()}
	for _, text := range e.GetAddresses() {
		a, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		at := netip.AddrPortFrom(a.Unmap(), target)
		switch {
		case !b.Address.IsValid():
			b.Address = at
		case b.Address.Addr().Is4() && at.Addr().Is6() && !b.Address6.IsValid():
			b.Address6 = at
		}
	}
	return b
}

func networkOf(p typesv1.Protocol) (string, bool) {
	switch p {
	case typesv1.Protocol_PROTOCOL_UNSPECIFIED, typesv1.Protocol_PROTOCOL_TCP:
		return "tcp", true
	case typesv1.Protocol_PROTOCOL_UDP:
		return "udp", true
	case typesv1.Protocol_PROTOCOL_SCTP:
		return "sctp", true
	}
	return "", false
}

// first is the first address of a list, which must be one.
func first(addresses []string) (netip.Addr, error) {
	if len(addresses) == 0 {
		return netip.Addr{}, errs.New(errs.Invalid, "has no address")
	}
	a, err := netip.ParseAddr(addresses[0])
	if err != nil {
		return netip.Addr{}, errs.New(errs.Invalid, "%q is not an IP address", addresses[0])
	}
	return a.Unmap(), nil
}

// Peers is where the meshproxies of the other machines listen: host:port by node id, best first.
func (m *Model) Peers(self string) map[string][]string {
	out := map[string][]string{}
	if m == nil {
		return out
	}
	for id := range m.machines {
		if list := m.Peer(id); id != self && len(list) > 0 {
			out[id] = list
		}
	}
	return out
}

// Peer is where the meshproxy of one machine listens, best first; nil where none is known to.
func (m *Model) Peer(id string) (out []string) {
	machine := m.machines[id]
	if machine.GetMeshPort() == 0 {
		return nil
	}
	for _, a := range machine.GetAddresses() {
		out = append(out, hostPort(a, machine.GetMeshPort()))
	}
	return out
}

// hostPort is as in package net, which this package must not import.
func hostPort(host string, port uint32) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.FormatUint(uint64(port), 10)
}
