package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/admit"
	"github.com/shoalproject/shoal/services/store/internal/desk"
	"github.com/shoalproject/shoal/services/store/internal/listing"
)

type networks struct {
	controlv1.UnimplementedNetworkServiceServer
	*API
}

// CreateNetwork implements NetworkService.
func (s networks) CreateNetwork(ctx context.Context, req *controlv1.CreateNetworkRequest) (*controlv1.CreateNetworkResponse, error) {
	id, err := s.requestID("create a network", req.GetRequestId())
	if err != nil {
		return nil, err
	}
	req = proto.CloneOf(req)
	req.RequestId = id
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.CreateNetworkResponse, error) {
			out, err := s.admits.Commit(ctx, caller, req.GetRequestId(), func(d *desk.Desk) (*storev1.Transaction, error) {
				return s.createTx(d, req.GetSpec())
			})
			if err != nil {
				return nil, err
			}
			n := s.cfg.Node.View().Image.Snapshot().Network(out.GetSubject().GetId())
			if n == nil {
				return nil, errs.New(errs.NotFound, "the network was made and has been removed since")
			}
			return &controlv1.CreateNetworkResponse{Network: n}, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.CreateNetworkResponse, error) {
			return controlv1.NewNetworkServiceClient(conn).CreateNetwork(ctx, req)
		})
}

func (s networks) createTx(d *desk.Desk, in *typesv1.NetworkSpec) (*storev1.Transaction, error) {
	spec, faults := admit.Network(d.Snap, in, d.InUse())
	what := fmt.Sprintf("create network %q", spec.GetAnnotations().GetName())
	if err := faults.Err(what); err != nil {
		return nil, err
	}
	ipam, err := d.IPAM(what, spec)
	if err != nil {
		return nil, err
	}
	n := &typesv1.Network{Meta: &typesv1.Meta{Id: s.newID()}, Spec: spec, Ipam: ipam}
	return &storev1.Transaction{Puts: []*storev1.Put{desk.Create(state.Wrap(n), "spec", "ipam")}}, nil
}

// DeleteNetwork implements NetworkService.
func (s networks) DeleteNetwork(ctx context.Context, req *controlv1.DeleteNetworkRequest) (*controlv1.DeleteNetworkResponse, error) {
	return onLeader(ctx, s.API, false,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.DeleteNetworkResponse, error) {
			id := ""
			_, err := s.admits.Commit(ctx, caller, s.newID(), func(d *desk.Desk) (*storev1.Transaction, error) {
				n, err := findNetwork(d.Snap, req.GetNetwork())
				if err != nil {
					return nil, err
				}
				id = n.GetMeta().GetId()
				if err := networkInUse(d.Snap, n); err != nil {
					return nil, err
				}
				return &storev1.Transaction{Deletes: []*storev1.Delete{{Kind: typesv1.Kind_KIND_NETWORK, Id: id}}}, nil
			})
			if err != nil {
				return nil, err
			}
			return &controlv1.DeleteNetworkResponse{Id: id}, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.DeleteNetworkResponse, error) {
			return controlv1.NewNetworkServiceClient(conn).DeleteNetwork(ctx, req)
		})
}

// networkInUse names who uses the network: services first, for their tasks follow from them.
func networkInUse(s *state.Snapshot, n *typesv1.Network) error {
	name := n.GetSpec().GetAnnotations().GetName()
	users := s.ReferencedBy(state.Key{Kind: typesv1.Kind_KIND_NETWORK, ID: n.GetMeta().GetId()})
	for _, u := range users {
		if svc := s.Service(u.ID); u.Kind == typesv1.Kind_KIND_SERVICE && svc != nil {
			return errs.New(errs.Precondition, "network %s is in use by service %s", name, svc.GetSpec().GetAnnotations().GetName())
		}
	}
	if len(users) > 0 {
		return errs.New(errs.Precondition, "network %s is in use by %s %s, which has not stopped yet", name, state.KindName(users[0].Kind), users[0].ID)
	}
	return nil
}

// GetNetwork implements NetworkService.
func (s networks) GetNetwork(ctx context.Context, req *controlv1.GetNetworkRequest) (*controlv1.GetNetworkResponse, error) {
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	n, err := findNetwork(snap, req.GetNetwork())
	if err != nil {
		return nil, err
	}
	return &controlv1.GetNetworkResponse{Network: n, Usage: desk.Usage(snap, n), Guests: guests(snap, n)}, nil
}

// ListNetworks implements NetworkService.
func (s networks) ListNetworks(ctx context.Context, req *controlv1.ListNetworksRequest) (*controlv1.ListNetworksResponse, error) {
	const what = "list networks"
	f, err := listing.Parse(what, req.GetFilters(), "id", "name", "label", "driver")
	if err != nil {
		return nil, err
	}
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	var rows []listing.Row[*typesv1.Network]
	for n := range snap.Networks() {
		a := n.GetSpec().GetAnnotations()
		if f.Prefix("id", n.GetMeta().GetId()) && f.Prefix("name", a.GetName()) && f.Label("label", a.GetLabels()) && f.Equal("driver", n.GetSpec().GetDriver()) {
			rows = append(rows, listing.Row[*typesv1.Network]{Key: a.GetName() + listing.Sep + n.GetMeta().GetId(), Value: n})
		}
	}
	resp := &controlv1.ListNetworksResponse{}
	resp.Networks, resp.NextPageToken, err = listing.Page(what, rows, req.GetPageSize(), req.GetPageToken(), listing.SizeOf)
	for _, n := range resp.GetNetworks() {
		resp.Usage = append(resp.Usage, &controlv1.NetworkUsage{Subnets: desk.Usage(snap, n)})
	}
	return resp, err
}

// guests are the containers of other tools on a network, by name.
func guests(s *state.Snapshot, n *typesv1.Network) (out []*controlv1.NetworkGuest) {
	for _, user := range s.ReferencedBy(state.Key{Kind: typesv1.Kind_KIND_NETWORK, ID: n.GetMeta().GetId()}) {
		svc := s.Service(user.ID)
		at := svc.GetSpec().GetTask().GetContainer().GetAttach()
		if user.Kind != typesv1.Kind_KIND_SERVICE || at == nil {
			continue
		}
		g := &controlv1.NetworkGuest{ServiceId: user.ID, Name: svc.GetSpec().GetAnnotations().GetName(), Namespace: at}
		var newest *typesv1.Task
		for t := range s.TasksOfService(user.ID) {
			if newest == nil || t.GetMeta().GetRevision() > newest.GetMeta().GetRevision() {
				newest = t
			}
		}
		if newest != nil {
			node := s.Node(newest.GetDecided().GetNodeId())
			g.NodeId, g.NodeHostname = node.GetMeta().GetId(), state.Hostname(node)
			g.State, g.Message = state.TaskState(newest, node), state.TaskReason(newest, node)
			for _, a := range newest.GetDecided().GetAddresses() {
				if a.GetNetworkId() == n.GetMeta().GetId() && !state.Terminal(newest.GetObserved().GetState()) {
					g.Addresses = a.GetAddresses()
				}
			}
		}
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b *controlv1.NetworkGuest) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return out
}
