package insight

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// tableName is how nft calls the machine's own table, and vipTable that in containers.
const tableName, vipTable = "inet shoal", "inet shoal-vip"

// TraceService implements NodeNetworkService.
func (s *Server) TraceService(req *logsv1.TraceServiceRequest, out grpc.ServerStreamingServer[logsv1.TraceServiceResponse]) error {
	model := s.Mesh.Told()
	ref := req.GetService()
	svc, virtual := serviceOf(model, ref), virtualOf(model, ref)
	if svc == nil && len(virtual) == 0 {
		return errs.New(errs.NotFound, "service %.100q has no published port, and no task of a network of its own runs on this machine", ref)
	}
	elements := map[kernel.Slot]string{}
	if s.Elements != nil {
		var err error
		if elements, err = s.Elements(); err != nil {
			return err
		}
	}
	// Step 1: who has how many connections now, by what was dialled and who dialled.
	open := map[use]uint64{}
	err := s.each(out.Context(), func(c *logsv1.MeshConnection) {
		if c.GetService() == ref || c.GetServiceId() == ref {
			open[useOf(c)]++
		}
	})
	if err != nil {
		return err
	}
	// Step 2: the published ports, then the virtual addresses.
	r := &logsv1.TraceServiceResponse{}
	for _, p := range s.Mesh.Shown().Ports() {
		if svc != nil && p.Service == svc.GetName() {
			r.Ways = append(r.Ways, published(p, elements, open))
		}
	}
	for _, way := range r.GetWays() {
		for _, e := range svc.GetEndpoints() {
			if !slices.ContainsFunc(way.GetEnds(), func(x *logsv1.TraceEnd) bool { return x.GetTaskId() == e.GetTaskId() }) {
				why := "the port's policy, or its machine does not answer"
				if e.GetDraining() {
					why = "it stops, is not ready, or its machine is silent"
				}
				way.Ends = append(way.Ends, &logsv1.TraceEnd{TaskId: e.GetTaskId(), NodeId: e.GetNodeId(), Address: strings.Join(e.GetAddresses(), " "), LeftOut: why})
			}
		}
	}
	if s.Virtual != nil {
		places := placesOf(model)
		for _, of := range virtual {
			for _, vip := range of.GetVips() {
				r.Ways = append(r.Ways, s.virtual(vip, places, open)...)
			}
		}
	}
	return out.Send(r)
}

// use is what connections have in common: what was dialled, from which container, and where they were led.
type use struct{ protocol, vip, container, ledTo string }

func useOf(c *logsv1.MeshConnection) use {
	at, _ := netip.ParseAddrPort(c.GetDialled()) // user space does not always know it
	to, _ := netip.ParseAddrPort(c.GetLedTo())   // as it was written
	if c.GetContainer() != "" {
		return use{vip: at.Addr().String(), container: c.GetContainer(), ledTo: to.Addr().String()}
	}
	return use{protocol: c.GetProtocol(), ledTo: c.GetLedTo()}
}

// published is the way to a port. Its steps are compared with what is in the kernel.
func published(p mesh.Port, elements map[kernel.Slot]string, open map[use]uint64) *logsv1.TraceWay {
	way := &logsv1.TraceWay{Dialled: p.String(), Carrier: byKernel}
	switch {
	case p.Refused:
		way.Carrier = "refused"
	case p.UserSpace || len(p.Backends) == 0:
		way.Carrier = userSpace
	}
	there := func(x step) *logsv1.TraceStep {
		value, ok := elements[x.Slot]
		return &logsv1.TraceStep{Table: tableName + " " + x.Set, Key: x.Key, Value: cmp.Or(value, x.value), Missing: !ok || value != x.value}
	}
	steps := map[string]*logsv1.TraceStep{} // by the address that they lead to
	for _, is4 := range []bool{true, false} {
		path, ends := stepsOf(p, is4)
		for _, x := range path {
			way.Steps = append(way.Steps, there(x))
		}
		for _, x := range ends {
			steps[x.value] = there(x)
		}
	}
	for _, b := range p.Backends {
		for _, at := range []netip.AddrPort{b.Address, b.Address6} {
			if at.IsValid() {
				way.Ends = append(way.Ends, &logsv1.TraceEnd{
					TaskId: b.Task, NodeId: b.Node, Address: at.String(), Step: steps[elementOf(at)],
					Connections: open[use{protocol: p.Network, ledTo: at.String()}],
				})
			}
		}
	}
	return way
}

// virtual is the way to a virtual address, from each container that may dial it.
func (s *Server) virtual(vip string, places map[netip.Addr]place, open map[use]uint64) []*logsv1.TraceWay {
	at, err := netip.ParseAddr(vip)
	if err != nil {
		return nil
	}
	behind := s.Virtual.Behind(at)
	var out []*logsv1.TraceWay
	for _, container := range slices.Sorted(maps.Keys(behind)) {
		way := &logsv1.TraceWay{Dialled: vip, Carrier: byKernel, Container: container}
		if len(behind[container]) == 0 {
			way.Carrier = "refused"
		}
		for _, b := range behind[container] {
			p := places[b]
			way.Ends = append(way.Ends, &logsv1.TraceEnd{
				TaskId: p.task, NodeId: p.node, Address: b.String(),
				Step:        &logsv1.TraceStep{Table: vipTable + " backends" + familyOf(b), Key: vip, Value: b.String()},
				Connections: open[use{vip: at.String(), container: container, ledTo: b.String()}],
			})
		}
		out = append(out, way)
	}
	return out
}

func familyOf(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}
