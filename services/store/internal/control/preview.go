package control

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
)

type previews struct {
	controlv1.UnimplementedPreviewServiceServer
	*API
}

// Preview implements PreviewService. The leader answers: it alone knows what is on its way. Nothing here can propose.
func (s previews) Preview(ctx context.Context, req *controlv1.PreviewRequest) (*controlv1.PreviewResponse, error) {
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.PreviewResponse, error) {
			image, err := s.cfg.Node.Linear(ctx)
			if err != nil {
				return nil, err
			}
			made, err := s.callOf(ctx, image.Snapshot(), req)
			if err != nil {
				return nil, err
			}
			out, err := s.admits.Preview(image, caller, made)
			if err != nil {
				return nil, err
			}
			return &controlv1.PreviewResponse{Effect: effectOf(out), Version: image.Snapshot().Version().Proto()}, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.PreviewResponse, error) {
			return controlv1.NewPreviewServiceClient(conn).Preview(ctx, req)
		})
}

// callOf is how the call that is previewed makes its transaction.
func (s previews) callOf(ctx context.Context, snap *state.Snapshot, req *controlv1.PreviewRequest) (desk.Build, error) {
	svc := services{API: s.API}
	switch c := req.GetCall().(type) {
	case *controlv1.PreviewRequest_CreateService:
		return func(d *desk.Desk) (*storev1.Transaction, error) { return svc.createTx(d, c.CreateService.GetSpec()) }, nil
	case *controlv1.PreviewRequest_UpdateService:
		return func(d *desk.Desk) (*storev1.Transaction, error) { return svc.updateTx(d, c.UpdateService) }, nil
	case *controlv1.PreviewRequest_RollbackService:
		return func(d *desk.Desk) (*storev1.Transaction, error) { return svc.rollbackTx(d, c.RollbackService) }, nil
	case *controlv1.PreviewRequest_DeleteService:
		return func(d *desk.Desk) (*storev1.Transaction, error) {
			return deleteServiceTx(d, c.DeleteService.GetService())
		}, nil
	case *controlv1.PreviewRequest_UpdateNode:
		return func(d *desk.Desk) (*storev1.Transaction, error) { return updateNode(d, c.UpdateNode) }, nil
	case *controlv1.PreviewRequest_DeleteNode:
		return nodes{API: s.API}.removalOf(ctx, snap, c.DeleteNode)
	}
	return nil, errs.Faults("preview", errs.Fault{Field: "call", Reason: "is missing"})
}

// removalOf is the removal of a machine, if the group can do without its vote.
func (s nodes) removalOf(ctx context.Context, snap *state.Snapshot, req *controlv1.DeleteNodeRequest) (desk.Build, error) {
	m, err := findMachine(snap, req.GetNode())
	if err != nil {
		return nil, err
	}
	if p := s.cfg.Node.View().PeerOn(m.id); p != nil {
		if err := s.cfg.Node.Spare(ctx, p.GetRaftId(), false); err != nil {
			return nil, fmt.Errorf("remove node %s: %w", m.hostname, err)
		}
	}
	return func(d *desk.Desk) (*storev1.Transaction, error) {
		if err := s.removable(d, m, req.GetForce()); err != nil {
			return nil, err
		}
		return s.removeTx(d, m)
	}, nil
}

// effectOf is what a scheduler plans with. Certificates and members are nobody's business here.
func effectOf(r fsm.Result) *controlv1.Effect {
	planned := func(k typesv1.Kind) bool { return k == typesv1.Kind_KIND_SERVICE || k == typesv1.Kind_KIND_NODE }
	out := &controlv1.Effect{}
	for _, o := range r.Delta.GetPuts() {
		if planned(state.KindOf(o)) {
			out.Puts = append(out.Puts, o)
		}
	}
	for _, d := range r.Delta.GetDeletes() {
		if planned(d.GetKind()) {
			out.Removals = append(out.Removals, &controlv1.Removal{Kind: d.GetKind(), Id: d.GetId()})
		}
	}
	return out
}
