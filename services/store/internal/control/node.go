package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/admit"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
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
			return &controlv1.GetNodeResponse{Node: s.listed(n), Version: versionOf(snap, n.GetMeta())}, nil
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
	f, err := parseFilters(what, req.GetFilters(), "id", "name", "label", "node.label", "role", "membership", "availability")
	if err != nil {
		return nil, err
	}
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	var rows []row[*typesv1.Node]
	for n := range snap.Nodes() {
		if matchNode(f, n) {
			rows = append(rows, row[*typesv1.Node]{state.Hostname(n) + sep + n.GetMeta().GetId(), n})
		}
	}
	cut, next, err := page(what, rows, req.GetPageSize(), req.GetPageToken(), sizeOf)
	if err != nil {
		return nil, err
	}
	resp := &controlv1.ListNodesResponse{NextPageToken: next}
	for _, n := range cut {
		resp.Nodes = append(resp.Nodes, s.listed(n))
	}
	return resp, nil
}

func matchNode(f filters, n *typesv1.Node) bool {
	labels := n.GetSpec().GetAnnotations().GetLabels()
	return f.prefix("id", n.GetMeta().GetId()) && f.prefix("name", state.Hostname(n)) &&
		f.label("label", labels) && f.label("node.label", labels) &&
		f.equal("role", strings.TrimPrefix(n.GetSpec().GetRole().String(), "NODE_ROLE_")) &&
		f.equal("membership", "accepted") &&
		f.equal("availability", strings.TrimPrefix(n.GetSpec().GetAvailability().String(), "AVAILABILITY_"))
}

// UpdateNode implements NodeService.
func (s nodes) UpdateNode(ctx context.Context, req *controlv1.UpdateNodeRequest) (*controlv1.UpdateNodeResponse, error) {
	return onLeader(ctx, s.API, false,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.UpdateNodeResponse, error) {
			out, err := s.admits.commit(ctx, caller, s.newID(), func(d *desk) (*storev1.Transaction, error) {
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
			return &controlv1.UpdateNodeResponse{Node: n, Version: versionOf(snap, n.GetMeta())}, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.UpdateNodeResponse, error) {
			return controlv1.NewNodeServiceClient(conn).UpdateNode(ctx, req)
		})
}

func updateNode(d *desk, req *controlv1.UpdateNodeRequest) (*storev1.Transaction, error) {
	n, err := findNode(d.snap, req.GetNode())
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("update node %s", state.Hostname(n))
	if err := checkVersion(d.snap, what, req.GetVersion(), n.GetMeta()); err != nil {
		return nil, err
	}
	spec, faults := admit.Node(req.GetSpec(), n.GetSpec())
	if err := faults.Err(what); err != nil {
		return nil, err
	}
	key := state.Key{Kind: typesv1.Kind_KIND_NODE, ID: n.GetMeta().GetId()}
	return &storev1.Transaction{
		Preconditions: unchanged(key, versionOf(d.snap, n.GetMeta())),
		Puts:          []*storev1.Put{put(state.Wrap(&typesv1.Node{Meta: n.GetMeta(), Spec: spec}), "spec")},
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

func (s nodes) remove(ctx context.Context, caller rpc.Caller, req *controlv1.DeleteNodeRequest) (*controlv1.DeleteNodeResponse, error) {
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	n, err := removable(snap, req)
	if err != nil {
		return nil, err
	}
	// Step 1: its voter goes first. The other order could leave a group that waits for a machine which nobody knows.
	if err := s.removeVoter(ctx, n); err != nil {
		return nil, err
	}
	// Step 2: the machine, its processes and their certificates go, and their identities are denied, in one transaction.
	_, err = s.admits.commit(ctx, caller, s.newID(), func(d *desk) (*storev1.Transaction, error) {
		if _, err := removable(d.snap, req); err != nil {
			return nil, err
		}
		return s.removeTx(d.snap, n), nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.DeleteNodeResponse{Id: n.GetMeta().GetId()}, nil
}

func removable(s *state.Snapshot, req *controlv1.DeleteNodeRequest) (*typesv1.Node, error) {
	n, err := findNode(s, req.GetNode())
	if err != nil {
		return nil, err
	}
	if n.GetStatus().GetState() != typesv1.NodeState_NODE_STATE_DOWN && !req.GetForce() {
		return nil, errs.New(errs.Precondition, "node %s is not down and can't be removed", state.Hostname(n))
	}
	return n, nil
}

func (s nodes) removeVoter(ctx context.Context, n *typesv1.Node) error {
	v := s.cfg.Node.View()
	p := v.PeerOn(n.GetMeta().GetId())
	if p == nil {
		return nil
	}
	if p.GetRaftId() == v.ID {
		// A leader cannot see its own removal through: it gives the leadership away, and the call goes to the next one.
		if err := s.cfg.Node.Transfer(ctx); err != nil {
			return fmt.Errorf("remove node %s: %w", state.Hostname(n), err)
		}
		if err := s.awaitFollower(ctx); err != nil {
			return err
		}
		return errs.New(errs.Unavailable, "the leadership moved: %w", raftnode.NotLeader{})
	}
	if err := s.cfg.Node.Remove(ctx, p.GetRaftId()); err != nil {
		return fmt.Errorf("remove node %s: %w", state.Hostname(n), err)
	}
	// It hears of its removal over the connections that the deny list is about to close.
	return run.Sleep(ctx, farewell)
}

// farewell is how long a removed store has to hear of it.
const farewell = 300 * time.Millisecond

// awaitFollower waits until another member leads.
func (s nodes) awaitFollower(ctx context.Context) error {
	for {
		v, changed := s.cfg.Node.Watch()
		if v.Leader != 0 && v.Leader != v.ID {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errs.New(errs.Unavailable, "the leadership could not be given away in time: %w", ctx.Err())
		}
	}
}

// removeTx removes the machine and all that is certified for it.
func (s nodes) removeTx(snap *state.Snapshot, n *typesv1.Node) *storev1.Transaction {
	id := n.GetMeta().GetId()
	tx := &storev1.Transaction{Deletes: []*storev1.Delete{{Kind: typesv1.Kind_KIND_NODE, Id: id}}}
	until := timestamppb.New(s.cfg.Node.ClusterTime().Add(denialLife(snap)))
	reason := fmt.Sprintf("node %s was removed", state.Hostname(n))
	for _, role := range processRoles() {
		member := identity.ID{Role: role, Name: id}.Member()
		m, c := snap.Member(member), snap.Credential(member)
		if m != nil {
			tx.Deletes = append(tx.Deletes, &storev1.Delete{Kind: typesv1.Kind_KIND_MEMBER, Id: member})
		}
		if c != nil {
			tx.Deletes = append(tx.Deletes, &storev1.Delete{Kind: typesv1.Kind_KIND_CREDENTIAL, Id: member})
			// The serial stays denied also when a CA lets the machine join again and takes its identities off the list.
			tx.Puts = append(tx.Puts, denial(snap, c.GetSerial(), reason, until))
		}
		if m != nil || c != nil {
			tx.Puts = append(tx.Puts, denial(snap, member, reason, until))
		}
	}
	s.forgetDenials(snap, tx)
	return tx
}

// processRoles are the roles that a machine's processes have.
func processRoles() []authzv1.Role {
	return []authzv1.Role{
		authzv1.Role_ROLE_CA, authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_SCHEDULER, authzv1.Role_ROLE_DISPATCHER,
		authzv1.Role_ROLE_GATEWAY, authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY,
	}
}
