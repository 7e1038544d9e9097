package place

import (
	"hash/fnv"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	hostPorts = state.LastHostPort - state.FirstHostPort + 1
	// mostPorts is how many host ports a node may have in use and still give one to whoever asks for any: there is always one
	// free, and it is found soon.
	mostPorts = hostPorts / 2
)

// PortsOn are the host ports of a task on the node: those of the spec, and for each of no number one that is free. The task's id
// says where the search begins, so that a port that was given back is not the next to be given out. Taken tells of a port that
// answers on every machine.
func (r *Request) PortsOn(n *Node, task string, taken func(typesv1.Protocol, uint32) bool) []*typesv1.PortConfig {
	if len(r.AnyPorts) == 0 {
		return r.Ports
	}
	out := slices.Clone(r.Ports)
	for _, c := range r.AnyPorts {
		h := fnv.New32a()
		_, _ = h.Write([]byte(task)) // it never fails
		first := h.Sum32() % hostPorts
		for i := range uint32(hostPorts) {
			port := state.FirstHostPort + (first+i)%hostPorts
			if n.ports[Port{c.GetProtocol(), port}] > 0 || taken(c.GetProtocol(), port) || has(out, c.GetProtocol(), port) {
				continue
			}
			chosen := proto.CloneOf(c)
			chosen.PublishedPort = port
			out = append(out, chosen)
			break
		}
	}
	return out
}

func has(list []*typesv1.PortConfig, p typesv1.Protocol, port uint32) bool {
	return slices.ContainsFunc(list, func(c *typesv1.PortConfig) bool { return c.GetProtocol() == p && c.GetPublishedPort() == port })
}

// HasPorts reports whether these are the host ports that the request asks for.
func (r *Request) HasPorts(have []*typesv1.PortConfig) bool {
	if len(have) != len(r.Ports)+len(r.AnyPorts) {
		return false
	}
	for i, c := range slices.Concat(r.Ports, r.AnyPorts) {
		h := have[i]
		if c.GetProtocol() != h.GetProtocol() || c.GetTargetPort() != h.GetTargetPort() ||
			i < len(r.Ports) && c.GetPublishedPort() != h.GetPublishedPort() || i >= len(r.Ports) && h.GetPublishedPort() < state.FirstHostPort {
			return false
		}
	}
	return true
}
