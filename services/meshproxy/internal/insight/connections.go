package insight

import (
	"context"
	"net/netip"

	"google.golang.org/grpc"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tracked"
)

const (
	// usual and limit bound how many connections are told, and part how many in one message.
	usual, limit, part  = 1000, 10_000, 500
	byKernel, userSpace = "kernel", "userspace"
)

// ListConnections implements NodeNetworkService.
func (s *Server) ListConnections(req *logsv1.ListConnectionsRequest, out grpc.ServerStreamingServer[logsv1.ListConnectionsResponse]) error {
	bound := int(req.GetLimit())
	if bound == 0 {
		bound = usual
	}
	bound = min(bound, limit)
	var list []*logsv1.MeshConnection
	total := uint64(0)
	err := s.each(out.Context(), func(c *logsv1.MeshConnection) {
		if of := req.GetService(); of != "" && of != c.GetService() && of != c.GetServiceId() {
			return
		}
		if total++; len(list) < bound {
			list = append(list, c)
		}
	})
	if err != nil {
		return err
	}
	r := &logsv1.ListConnectionsResponse{Total: total}
	for {
		n := min(part, len(list))
		r.Connections, list = list[:n], list[n:]
		if err := out.Send(r); err != nil || len(list) == 0 {
			return err
		}
		r = &logsv1.ListConnectionsResponse{}
	}
}

// each hands on all connections that this machine's mesh has led to tasks. Others who ask wait for their turn.
func (s *Server) each(ctx context.Context, do func(*logsv1.MeshConnection)) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	if err := ctx.Err(); err != nil { // it has waited for too long
		return err
	}
	places := placesOf(s.Mesh.Told())
	tell := func(f tracked.Flow, carrier, container string) {
		p := places[f.LedTo.Addr()]
		do(&logsv1.MeshConnection{
			Protocol: f.Protocol, Client: text(f.Client), Dialled: text(f.Dialled), LedTo: text(f.LedTo), State: f.State,
			TaskId: p.task, ServiceId: p.serviceID, Service: p.service, NodeId: p.node, Carrier: carrier, Container: container,
		})
	}
	if s.Opened != nil {
		for _, o := range s.Opened() {
			tell(tracked.Flow{Protocol: o.Network, Client: o.Client, Dialled: o.Dialled, LedTo: o.Backend.For(o.Client.Addr().Is4())}, userSpace, "")
		}
	}
	if s.Flows != nil {
		err := s.Flows(func(f tracked.Flow) {
			if _, ours := places[f.LedTo.Addr()]; ours && f.Translated() {
				tell(f, byKernel, "")
			}
		})
		if err != nil {
			return err
		}
	}
	if s.Virtual == nil {
		return nil
	}
	return s.Virtual.Flows(func(container string, f tracked.Flow) { tell(f, byKernel, container) })
}

func text(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
