package control

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"

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

type nodes struct {
	controlv1.UnimplementedNodeServiceServer
	*API
}

// GetNode implements NodeService. Who can be reached is known to the leader alone, so it answers.
func (s nodes) GetNode(ctx context.Context, req *controlv1.GetNodeRequest) (*controlv1.GetNodeResponse, error) {
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, _ rpc.Caller) (*controlv1.GetNodeResponse, error) {
			snap, err := s.read(ctx)
			if err != nil {
				return nil, err
			}
			n, err := findNode(snap, req.GetNode())
			if err != nil {
				return nil, err
			}
			return &controlv1.GetNodeResponse{Node: s.listed(n), Version: desk.VersionOf(snap, n.GetMeta())}, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.GetNodeResponse, error) {
			return controlv1.NewNodeServiceClient(conn).GetNode(ctx, req)
		})
}

// listed is the machine with its part in Raft.
func (s nodes) listed(n *typesv1.Node) *controlv1.ListedNode {
	v := s.cfg.Node.View()
	out := &controlv1.ListedNode{Node: n}
	p := v.PeerOn(n.GetMeta().GetId())
	if p == nil {
		return out
	}
	out.Voter = p.GetVoter()
	switch {
	case p.GetRaftId() == v.Leader:
		out.ManagerStatus = controlv1.ManagerStatus_MANAGER_STATUS_LEADER
	case v.Heard[p.GetRaftId()]:
		out.ManagerStatus = controlv1.ManagerStatus_MANAGER_STATUS_REACHABLE
	default:
		out.ManagerStatus = controlv1.ManagerStatus_MANAGER_STATUS_UNREACHABLE
	}
	return out
}

// ListNodes implements NodeService.
func (s nodes) ListNodes(ctx context.Context, req *controlv1.ListNodesRequest) (*controlv1.ListNodesResponse, error) {
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, _ rpc.Caller) (*controlv1.ListNodesResponse, error) { return s.list(ctx, req) },
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.ListNodesResponse, error) {
			return controlv1.NewNodeServiceClient(conn).ListNodes(ctx, req)
		})
}

func (s nodes) list(ctx context.Context, req *controlv1.ListNodesRequest) (*controlv1.ListNodesResponse, error) {
	const what = "list nodes"
	f, err := listing.Parse(what, req.GetFilters(), "id", "name", "label", "node.label", "role", "membership", "availability")
	if err != nil {
		return nil, err
	}
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	var rows []listing.Row[*typesv1.Node]
	for n := range snap.Nodes() {
		if matchNode(f, n) {
			rows = append(rows, listing.Row[*typesv1.Node]{Key: state.Hostname(n) + listing.Sep + n.GetMeta().GetId(), Value: n})
		}
	}
	cut, next, err := listing.Page(what, rows, req.GetPageSize(), req.GetPageToken(), listing.SizeOf)
	if err != nil {
		return nil, err
	}
	resp := &controlv1.ListNodesResponse{NextPageToken: next}
	for _, n := range cut {
		resp.Nodes = append(resp.Nodes, s.listed(n))
	}
	return resp, nil
}

func matchNode(f listing.Filters, n *typesv1.Node) bool {
	labels := n.GetSpec().GetAnnotations().GetLabels()
	return f.Prefix("id", n.GetMeta().GetId()) && f.Prefix("name", state.Hostname(n)) &&
		f.Label("label", labels) && f.Label("node.label", labels) &&
		f.Equal("role", strings.TrimPrefix(n.GetSpec().GetRole().String(), "NODE_ROLE_")) &&
		f.Equal("membership", "accepted") &&
		f.Equal("availability", strings.TrimPrefix(n.GetSpec().GetAvailability().String(), "AVAILABILITY_"))
}

// UpdateNode implements NodeService.
func (s nodes) UpdateNode(ctx context.Context, req *controlv1.UpdateNodeRequest) (*controlv1.UpdateNodeResponse, error) {
	return onLeader(ctx, s.API, false,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.UpdateNodeResponse, error) {
			out, err := s.admits.Commit(ctx, caller, s.newID(), func(d *desk.Desk) (*storev1.Transaction, error) {
				return updateNode(d, req)
			})
			if err != nil {
				return nil, err
			}
			snap := s.cfg.Node.View().Image.Snapshot()
			n := snap.Node(out.GetSubject().GetId())
			if n == nil {
				return nil, errs.New(errs.NotFound, "the node was updated and has been removed since")
			}
			return &controlv1.UpdateNodeResponse{Node: n, Version: desk.VersionOf(snap, n.GetMeta())}, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.UpdateNodeResponse, error) {
			return controlv1.NewNodeServiceClient(conn).UpdateNode(ctx, req)
		})
}

func updateNode(d *desk.Desk, req *controlv1.UpdateNodeRequest) (*storev1.Transaction, error) {
	n, err := findNode(d.Snap, req.GetNode())
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("update node %s", state.Hostname(n))
	if err := desk.CheckVersion(d.Snap, what, req.GetVersion(), n.GetMeta()); err != nil {
		return nil, err
	}
	spec, faults := admit.Node(req.GetSpec(), n.GetSpec())
	if err := faults.Err(what); err != nil {
		return nil, err
	}
	key := state.Key{Kind: typesv1.Kind_KIND_NODE, ID: n.GetMeta().GetId()}
	return &storev1.Transaction{
		Preconditions: desk.Unchanged(key, desk.VersionOf(d.Snap, n.GetMeta())),
		Puts:          []*storev1.Put{desk.Put(state.Wrap(&typesv1.Node{Meta: n.GetMeta(), Spec: spec}), "spec")},
	}, nil
}

// DeleteNode implements NodeService.
func (s nodes) DeleteNode(ctx context.Context, req *controlv1.DeleteNodeRequest) (*controlv1.DeleteNodeResponse, error) {
	return onLeader(ctx, s.API, false,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.DeleteNodeResponse, error) {
			return s.remove(ctx, caller, req)
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.DeleteNodeResponse, error) {
			return controlv1.NewNodeServiceClient(conn).DeleteNode(ctx, req)
		})
}
