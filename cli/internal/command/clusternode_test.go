package command_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// addNode adds a machine.
func (f *cluster) addNode(id, hostname string, manager bool) {
	n := &controlv1.ListedNode{Node: &typesv1.Node{
		Meta: &typesv1.Meta{Id: id, Revision: 7, CreatedAt: timestamppb.New(time.Now())},
		Spec: &typesv1.NodeSpec{Role: typesv1.NodeRole_NODE_ROLE_WORKER, Availability: typesv1.Availability_AVAILABILITY_ACTIVE},
		Status: &typesv1.NodeStatus{
			State: typesv1.NodeState_NODE_STATE_READY, Addresses: []string{"10.0.0.1"},
			Description: &typesv1.NodeDescription{
				Hostname: hostname, Version: "v0.3.0 go1.26 linux/amd64", NanoCpus: 2e9, MemoryBytes: 4 << 30,
				Platform: &typesv1.Platform{Architecture: "amd64", Os: "linux"}, RuntimeVersion: "1.6",
			},
		},
	}}
	if manager {
		n.Node.Spec.Role, n.ManagerStatus, n.Voter = typesv1.NodeRole_NODE_ROLE_MANAGER, controlv1.ManagerStatus_MANAGER_STATUS_LEADER, true
	}
	f.nodes[id] = n
}

func (f *cluster) node(name string) (*controlv1.ListedNode, error) {
	for id, n := range f.nodes {
		if id == name || n.GetNode().GetStatus().GetDescription().GetHostname() == name {
			return n, nil
		}
	}
	return nil, errs.New(errs.NotFound, "there is none of that hostname or id")
}

func (f *cluster) GetNode(_ context.Context, req *controlv1.GetNodeRequest) (*controlv1.GetNodeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.node(req.GetNode())
	return &controlv1.GetNodeResponse{Node: n, Version: &typesv1.Version{Revision: n.GetNode().GetMeta().GetRevision()}}, err
}

func (f *cluster) ListNodes(context.Context, *controlv1.ListNodesRequest) (*controlv1.ListNodesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &controlv1.ListNodesResponse{}
	for _, n := range f.nodes {
		resp.Nodes = append(resp.Nodes, n)
	}
	slices.SortFunc(resp.Nodes, func(a, b *controlv1.ListedNode) int {
		return strings.Compare(a.GetNode().GetMeta().GetId(), b.GetNode().GetMeta().GetId())
	})
	return resp, nil
}

func (f *cluster) UpdateNode(_ context.Context, req *controlv1.UpdateNodeRequest) (*controlv1.UpdateNodeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.node(req.GetNode())
	if err != nil {
		return nil, err
	}
	n.Node.Spec = req.GetSpec()
	n.Node.Meta.Revision++
	return &controlv1.UpdateNodeResponse{Node: n.GetNode()}, nil
}

func (f *cluster) DeleteNode(_ context.Context, req *controlv1.DeleteNodeRequest) (*controlv1.DeleteNodeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.node(req.GetNode())
	if err != nil {
		return nil, err
	}
	if !req.GetForce() && n.GetNode().GetStatus().GetState() != typesv1.NodeState_NODE_STATE_DOWN {
		return nil, errs.New(errs.Precondition, "node %s is not down and can't be removed", n.GetNode().GetStatus().GetDescription().GetHostname())
	}
	delete(f.nodes, n.GetNode().GetMeta().GetId())
	if f.lost {
		f.lost = false
		return nil, errs.New(errs.Unavailable, "the connection was closed")
	}
	return &controlv1.DeleteNodeResponse{Id: n.GetNode().GetMeta().GetId()}, nil
}

func (f *cluster) GetVersion(context.Context, *controlv1.GetVersionRequest) (*controlv1.GetVersionResponse, error) {
	return &controlv1.GetVersionResponse{Version: "v0.3.0", GoVersion: "go1.26", Leader: "m1", Store: &typesv1.Version{Epoch: &typesv1.Epoch{Number: 1}, Revision: 42}}, nil
}

func (f *cluster) GetJoinToken(_ context.Context, req *cav1.GetJoinTokenRequest) (*cav1.GetJoinTokenResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &cav1.GetJoinTokenResponse{Token: fmt.Sprintf("SHOAL-1-%s-%d", req.GetRole(), f.rotated), Addresses: []string{"10.0.0.1:2377"}}, nil
}

func (f *cluster) RotateJoinToken(_ context.Context, req *cav1.RotateJoinTokenRequest) (*cav1.RotateJoinTokenResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rotated++
	return &cav1.RotateJoinTokenResponse{Token: fmt.Sprintf("SHOAL-1-%s-%d", req.GetRole(), f.rotated), Addresses: []string{"10.0.0.1:2377"}}, nil
}
