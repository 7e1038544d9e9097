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
}

// Backend is a task behind a port.
type Backend struct {
	// Task and Node are ids.
	Task, Node string
	// Address is the task's, on the machine network, with the port in the container.
	Address netip.AddrPort
}

// Ports lists the published ports in order of network and number. What is wrong in the tables is left out and told in the
// error, one fault each, beside the ports that are right.
func (m *Model) Ports() ([]Port, error) {
	if m == nil {
		return nil, nil
	}
	var faults errs.Collector
	seen := map[Listener]string{}
	var out []Port
	for svc := range inOrder(m.services) {
		for _, pc := range svc.GetPorts() {
			p, ok := portOf(svc, pc, &faults)
			if !ok {
				continue
			}
			if holder, taken := seen[p.Listener]; taken {
				faults.Add("service "+svc.GetName(), "port %s is service %q's already", p.Listener, holder)
				continue
			}
			seen[p.Listener] = svc.GetName()
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Port, b.Port))
	})
	return out, faults.Err("published ports")
}

// portOf is one published port; ok is false for one that is not the mesh's, or is wrong.
func portOf(svc *dispatcherv1.MeshService, pc *typesv1.PortConfig, faults *errs.Collector) (p Port, ok bool) {
	network, ok := networkOf(pc.GetProtocol())
	mode := pc.GetPublishMode()
	if !ok || (mode != typesv1.PublishMode_PUBLISH_MODE_UNSPECIFIED && mode != typesv1.PublishMode_PUBLISH_MODE_INGRESS) {
		return Port{}, false // of a newer cluster: others serve it
	}
	published, target := pc.GetPublishedPort(), pc.GetTargetPort()
	if published < 1 || published > 65535 || target < 1 || target > 65535 {
		faults.Add("service "+svc.GetName(), "port %d to %d is not between 1 and 65535", published, target)
		return Port{}, false
	}
	p = Port{Listener: Listener{network, uint16(published)}, Service: svc.GetName()}
	endpoints := slices.Clone(svc.GetEndpoints())
	slices.SortFunc(endpoints, func(a, b *dispatcherv1.MeshEndpoint) int {
		return cmp.Or(cmp.Compare(a.GetSlot(), b.GetSlot()), cmp.Compare(a.GetTaskId(), b.GetTaskId()))
	})
	for _, e := range endpoints {
		addr, err := first(e.GetAddresses())
		if err != nil {
			faults.Add("service "+svc.GetName(), "task %s: %s", e.GetTaskId(), err)
			continue
		}
		p.Backends = append(p.Backends, Backend{e.GetTaskId(), e.GetNodeId(), netip.AddrPortFrom(addr, uint16(target))})
	}
	return p, true
}

func networkOf(p typesv1.Protocol) (string, bool) {
	switch p {
	case typesv1.Protocol_PROTOCOL_UNSPECIFIED, typesv1.Protocol_PROTOCOL_TCP:
		return "tcp", true
	case typesv1.Protocol_PROTOCOL_UDP:
		return "udp", true
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
	for id, machine := range m.machines {
		if id == self || machine.GetMeshPort() == 0 {
			continue
		}
		for _, a := range machine.GetAddresses() {
			out[id] = append(out[id], hostPort(a, machine.GetMeshPort()))
		}
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
