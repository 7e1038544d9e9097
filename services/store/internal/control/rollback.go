package control

import (
	"bytes"
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
)

// RollbackService implements ServiceService.
func (s services) RollbackService(ctx context.Context, req *controlv1.RollbackServiceRequest) (*controlv1.RollbackServiceResponse, error) {
	id, err := s.requestID("roll a service back", req.GetRequestId())
	if err != nil {
		return nil, err
	}
	req = proto.CloneOf(req)
	req.RequestId = id
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.RollbackServiceResponse, error) {
			out, err := s.admits.Commit(ctx, caller, req.GetRequestId(), func(d *desk.Desk) (*storev1.Transaction, error) {
				return s.rollbackTx(d, req)
			})
			if err != nil {
				return nil, err
			}
			svc, v, err := s.after(out)
			return &controlv1.RollbackServiceResponse{Service: svc, Version: v}, err
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.RollbackServiceResponse, error) {
			return controlv1.NewServiceServiceClient(conn).RollbackService(ctx, req)
		})
}

// rollbackTx is an update to the task spec that is gone back to: what was admitted then is judged anew, for a network of it
// may be gone.
func (s services) rollbackTx(d *desk.Desk, req *controlv1.RollbackServiceRequest) (*storev1.Transaction, error) {
	svc, err := findService(d.Snap, req.GetService())
	if err != nil {
		return nil, err
	}
	record, err := earlier(svc, req.GetSpecVersion())
	if err != nil {
		return nil, err
	}
	version := req.GetVersion()
	if version == nil {
		version = desk.VersionOf(d.Snap, svc.GetMeta())
	}
	spec := proto.CloneOf(svc.GetSpec())
	spec.Task = proto.CloneOf(record.GetTask())
	return s.reviseTx(d, &controlv1.UpdateServiceRequest{Service: svc.GetMeta().GetId(), Version: version, Spec: spec}, record.GetVersion())
}

// earlier is the version of a service's task spec that a rollback leads to; 0 asks for the one that was in force before.
func earlier(svc *typesv1.Service, wanted uint64) (*typesv1.SpecRecord, error) {
	what := fmt.Sprintf("roll back service %q", svc.GetSpec().GetAnnotations().GetName())
	history, status := svc.GetSpecHistory(), svc.GetUpdateStatus()
	if len(history) == 0 {
		return nil, errs.New(errs.Precondition, "%s: it has no earlier version", what)
	}
	if wanted == 0 {
		if state.RolledBack(svc) != nil {
			return nil, errs.New(errs.Precondition, "%s: its last update goes back to version %d by itself; name another version, there are %s",
				what, status.GetSpecVersion(), versionsOf(history))
		}
		wanted = state.VersionBefore(svc)
	}
	for _, r := range history {
		if r.GetVersion() != wanted {
			continue
		}
		if bytes.Equal(r.GetHash(), svc.GetSpecHash()) {
			return nil, errs.New(errs.Precondition, "%s: version %d is the same as the present one", what, wanted)
		}
		return r, nil
	}
	return nil, errs.New(errs.Precondition, "%s: version %d is not kept; there are %s", what, wanted, versionsOf(history))
}

func versionsOf(history []*typesv1.SpecRecord) string {
	out := ""
	for i, r := range history {
		if i > 0 {
			out += ", "
		}
		out += fmt.Sprint(r.GetVersion())
	}
	return out
}
