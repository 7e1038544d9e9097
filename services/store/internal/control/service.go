package control

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

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

type services struct {
	controlv1.UnimplementedServiceServiceServer
	*API
}

// CreateService implements ServiceService.
func (s services) CreateService(ctx context.Context, req *controlv1.CreateServiceRequest) (*controlv1.CreateServiceResponse, error) {
	id, err := s.requestID("create a service", req.GetRequestId())
	if err != nil {
		return nil, err
	}
	req = proto.CloneOf(req)
	req.RequestId = id
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.CreateServiceResponse, error) {
			out, err := s.admits.Commit(ctx, caller, req.GetRequestId(), func(d *desk.Desk) (*storev1.Transaction, error) {
				return s.createTx(d, req.GetSpec())
			})
			if err != nil {
				return nil, err
			}
			svc, v, err := s.after(out)
			return &controlv1.CreateServiceResponse{Service: svc, Version: v}, err
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.CreateServiceResponse, error) {
			return controlv1.NewServiceServiceClient(conn).CreateService(ctx, req)
		})
}

// after is the service that a transaction has made or changed.
func (s services) after(out *storev1.Outcome) (*typesv1.Service, *typesv1.Version, error) {
	snap := s.cfg.Node.View().Image.Snapshot()
	svc := snap.Service(out.GetSubject().GetId())
	if svc == nil {
		return nil, nil, errs.New(errs.NotFound, "the service was made and has been removed since")
	}
	return svc, desk.VersionOf(snap, svc.GetMeta()), nil
}

func (s services) createTx(d *desk.Desk, in *typesv1.ServiceSpec) (*storev1.Transaction, error) {
	spec, faults := admit.Service(d.Snap, "", in)
	what := fmt.Sprintf("create service %q", spec.GetAnnotations().GetName())
	if err := faults.Err(what); err != nil {
		return nil, err
	}
	svc := &typesv1.Service{Meta: &typesv1.Meta{Id: s.newID()}, Spec: spec, SpecVersion: 1}
	if err := d.Finish(what, svc, nil); err != nil {
		return nil, err
	}
	return &storev1.Transaction{Puts: []*storev1.Put{
		desk.Create(state.Wrap(svc), "spec", "spec_version", "spec_hash", "endpoint", "spec_history"),
	}}, nil
}

// UpdateService implements ServiceService.
func (s services) UpdateService(ctx context.Context, req *controlv1.UpdateServiceRequest) (*controlv1.UpdateServiceResponse, error) {
	id, err := s.requestID("update a service", req.GetRequestId())
	if err != nil {
		return nil, err
	}
	req = proto.CloneOf(req)
	req.RequestId = id
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.UpdateServiceResponse, error) {
			out, err := s.admits.Commit(ctx, caller, req.GetRequestId(), func(d *desk.Desk) (*storev1.Transaction, error) {
				return s.updateTx(d, req)
			})
			if err != nil {
				return nil, err
			}
			svc, v, err := s.after(out)
			return &controlv1.UpdateServiceResponse{Service: svc, Version: v}, err
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.UpdateServiceResponse, error) {
			return controlv1.NewServiceServiceClient(conn).UpdateService(ctx, req)
		})
}

func (s services) updateTx(d *desk.Desk, req *controlv1.UpdateServiceRequest) (*storev1.Transaction, error) {
	return s.reviseTx(d, req, 0)
}

// reviseTx is an update, or a rollback to an earlier version.
func (s services) reviseTx(d *desk.Desk, req *controlv1.UpdateServiceRequest, back uint64) (*storev1.Transaction, error) {
	old, err := findService(d.Snap, req.GetService())
	if err != nil {
		return nil, err
	}
	name := old.GetSpec().GetAnnotations().GetName()
	what := fmt.Sprintf("update service %q", name)
	if err := desk.CheckVersion(d.Snap, what, req.GetVersion(), old.GetMeta()); err != nil {
		return nil, err
	}
	spec, faults := admit.Service(d.Snap, old.GetMeta().GetId(), req.GetSpec())
	if n := spec.GetAnnotations().GetName(); n != "" {
		faults.Check(n == name, "name", "cannot be changed from %q to %q", name, n)
	}
	if err := faults.Err(what); err != nil {
		return nil, err
	}
	svc := proto.CloneOf(old)
	svc.Spec = spec
	if err := desk.Revise(d, what, svc, old); err != nil {
		return nil, err
	}
	if back != 0 {
		svc.RolledBackTo = back
	}
	key := state.Key{Kind: typesv1.Kind_KIND_SERVICE, ID: old.GetMeta().GetId()}
	return &storev1.Transaction{
		Preconditions: desk.Unchanged(key, req.GetVersion()),
		Puts:          []*storev1.Put{desk.PutService(svc)},
	}, nil
}

// DeleteService implements ServiceService. Tasks do not hold their service: it goes at once, and the scheduler, which sees
// tasks without one, has them stopped and removed.
func (s services) DeleteService(ctx context.Context, req *controlv1.DeleteServiceRequest) (*controlv1.DeleteServiceResponse, error) {
	return onLeader(ctx, s.API, false,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.DeleteServiceResponse, error) {
			id := ""
			_, err := s.admits.Commit(ctx, caller, s.newID(), func(d *desk.Desk) (*storev1.Transaction, error) {
				tx, err := deleteServiceTx(d, req.GetService())
				if err == nil {
					id = tx.GetDeletes()[0].GetId()
				}
				return tx, err
			})
			if err != nil {
				return nil, err
			}
			return &controlv1.DeleteServiceResponse{Id: id}, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.DeleteServiceResponse, error) {
			return controlv1.NewServiceServiceClient(conn).DeleteService(ctx, req)
		})
}

func deleteServiceTx(d *desk.Desk, ref string) (*storev1.Transaction, error) {
	svc, err := findService(d.Snap, ref)
	if err != nil {
		return nil, err
	}
	return &storev1.Transaction{Deletes: []*storev1.Delete{{Kind: typesv1.Kind_KIND_SERVICE, Id: svc.GetMeta().GetId()}}}, nil
}

// GetService implements ServiceService.
func (s services) GetService(ctx context.Context, req *controlv1.GetServiceRequest) (*controlv1.GetServiceResponse, error) {
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	svc, err := findService(snap, req.GetService())
	if err != nil {
		return nil, err
	}
	load, _ := state.LoadOf(snap, svc.GetMeta().GetId(), snap.ClusterTime())
	return &controlv1.GetServiceResponse{
		Load: load, Service: svc, Version: desk.VersionOf(snap, svc.GetMeta()), Counts: countsOf(snap, svc.GetMeta().GetId()), InForce: state.RolledBack(svc),
	}, nil
}

func countsOf(s *state.Snapshot, id string) *controlv1.TaskCounts {
	running, desired := state.Counts(s, id)
	out := &controlv1.TaskCounts{Running: running, Desired: desired}
	svc := s.Service(id)
	if !state.IsJob(svc) {
		return out
	}
	out.Total = svc.GetSpec().GetReplicatedJob().GetTotalCompletions()
	for t := range s.TasksOfService(id) { // a slot completes once a run
		if t.GetDecided().GetIteration() == svc.GetJobStatus().GetIteration() && t.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_COMPLETE {
			out.Completed++
		}
	}
	return out
}

// withoutHistory shares all with the service but its earlier task specs, which would make a list many times as long.
func withoutHistory(svc *typesv1.Service) *typesv1.Service {
	out := &typesv1.Service{}
	svc.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Name() != "spec_history" {
			out.ProtoReflect().Set(fd, v)
		}
		return true
	})
	return out
}

// ListServices implements ServiceService. It leaves the history of specs out; GetService has it.
func (s services) ListServices(ctx context.Context, req *controlv1.ListServicesRequest) (*controlv1.ListServicesResponse, error) {
	const what = "list services"
	f, err := listing.Parse(what, req.GetFilters(), "id", "name", "label", "mode")
	if err != nil {
		return nil, err
	}
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	var rows []listing.Row[*typesv1.Service]
	for svc := range snap.Services() {
		a := svc.GetSpec().GetAnnotations()
		if f.Prefix("id", svc.GetMeta().GetId()) && f.Prefix("name", a.GetName()) && f.Label("label", a.GetLabels()) && f.Equal("mode", admit.ModeName(svc.GetSpec())) {
			rows = append(rows, listing.Row[*typesv1.Service]{Key: a.GetName() + listing.Sep + svc.GetMeta().GetId(), Value: withoutHistory(svc)})
		}
	}
	cut, next, err := listing.Page(what, rows, req.GetPageSize(), req.GetPageToken(), listing.SizeOf)
	if err != nil {
		return nil, err
	}
	resp := &controlv1.ListServicesResponse{NextPageToken: next}
	for _, svc := range cut {
		id := svc.GetMeta().GetId()
		resp.Services = append(resp.Services, &controlv1.ListedService{
			Service: svc, Counts: countsOf(snap, id), InForce: state.RolledBack(snap.Service(id)),
		})
	}
	return resp, nil
}
