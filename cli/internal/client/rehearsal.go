package client

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Rehearsal is what calls would change, of a client that makes none of them.
type Rehearsal struct {
	Effect   controlv1.Effect
	PowerOff []string
	// Version is the newest state by which a call was judged.
	Version *typesv1.Version
}

// Rehearse lets every change of services and nodes be previewed from now on, instead of made: the answers are those of the
// calls, and nothing happens.
func (c *Client) Rehearse() *Rehearsal {
	r := &Rehearsal{}
	c.Services = rehearsedServices{ServiceServiceClient: c.Services, preview: c.Preview, r: r}
	c.Nodes = rehearsedNodes{NodeServiceClient: c.Nodes, preview: c.Preview, r: r}
	return r
}

// Foresee is what the rehearsed calls would lead to.
func (c *Client) Foresee(ctx context.Context, r *Rehearsal) (*schedulerv1.PlanResponse, error) {
	return c.Plan.Plan(ctx, &schedulerv1.PlanRequest{Effect: &r.Effect, PowerOff: r.PowerOff, AtLeast: r.Version})
}

func (r *Rehearsal) note(ctx context.Context, preview controlv1.PreviewServiceClient, req *controlv1.PreviewRequest) (*controlv1.Effect, error) {
	resp, err := preview.Preview(ctx, req)
	if err != nil {
		return nil, err
	}
	proto.Merge(&r.Effect, resp.GetEffect())
	if resp.GetVersion().GetRevision() > r.Version.GetRevision() {
		r.Version = resp.GetVersion()
	}
	return resp.GetEffect(), nil
}

// service is the one that a preview puts.
func service(e *controlv1.Effect) *typesv1.Service {
	for _, o := range e.GetPuts() {
		if s := o.GetService(); s != nil {
			return s
		}
	}
	return nil
}

type rehearsedServices struct {
	controlv1.ServiceServiceClient
	preview controlv1.PreviewServiceClient
	r       *Rehearsal
}

// CreateService implements controlv1.ServiceServiceClient, as do those that follow.
func (s rehearsedServices) CreateService(ctx context.Context, in *controlv1.CreateServiceRequest, _ ...grpc.CallOption) (*controlv1.CreateServiceResponse, error) {
	e, err := s.r.note(ctx, s.preview, &controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_CreateService{CreateService: in}})
	return &controlv1.CreateServiceResponse{Service: service(e)}, err
}

func (s rehearsedServices) UpdateService(ctx context.Context, in *controlv1.UpdateServiceRequest, _ ...grpc.CallOption) (*controlv1.UpdateServiceResponse, error) {
	e, err := s.r.note(ctx, s.preview, &controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_UpdateService{UpdateService: in}})
	return &controlv1.UpdateServiceResponse{Service: service(e)}, err
}

func (s rehearsedServices) RollbackService(ctx context.Context, in *controlv1.RollbackServiceRequest, _ ...grpc.CallOption) (*controlv1.RollbackServiceResponse, error) {
	e, err := s.r.note(ctx, s.preview, &controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_RollbackService{RollbackService: in}})
	return &controlv1.RollbackServiceResponse{Service: service(e)}, err
}

func (s rehearsedServices) DeleteService(ctx context.Context, in *controlv1.DeleteServiceRequest, _ ...grpc.CallOption) (*controlv1.DeleteServiceResponse, error) {
	e, err := s.r.note(ctx, s.preview, &controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_DeleteService{DeleteService: in}})
	return &controlv1.DeleteServiceResponse{Id: removed(e)}, err
}

func removed(e *controlv1.Effect) string {
	for _, r := range e.GetRemovals() {
		return r.GetId()
	}
	return ""
}

type rehearsedNodes struct {
	controlv1.NodeServiceClient
	preview controlv1.PreviewServiceClient
	r       *Rehearsal
}

// UpdateNode implements controlv1.NodeServiceClient, as does the one that follows.
func (n rehearsedNodes) UpdateNode(ctx context.Context, in *controlv1.UpdateNodeRequest, _ ...grpc.CallOption) (*controlv1.UpdateNodeResponse, error) {
	e, err := n.r.note(ctx, n.preview, &controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_UpdateNode{UpdateNode: in}})
	out := &controlv1.UpdateNodeResponse{}
	for _, o := range e.GetPuts() {
		out.Node = o.GetNode()
	}
	return out, err
}

func (n rehearsedNodes) DeleteNode(ctx context.Context, in *controlv1.DeleteNodeRequest, _ ...grpc.CallOption) (*controlv1.DeleteNodeResponse, error) {
	e, err := n.r.note(ctx, n.preview, &controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_DeleteNode{DeleteNode: in}})
	return &controlv1.DeleteNodeResponse{Id: removed(e)}, err
}
