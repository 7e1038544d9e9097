package control

import (
	"context"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/admit"
	"github.com/shoalproject/shoal/services/store/internal/desk"
	"github.com/shoalproject/shoal/services/store/internal/vault"
)

type configs struct {
	controlv1.UnimplementedConfigServiceServer
	*API
}

func (s configs) vault() vault.Vault[*typesv1.Config] {
	return vault.Vault[*typesv1.Config]{
		Office: s.office(), Kind: typesv1.Kind_KIND_CONFIG, Most: admit.MaxConfig,
		Get: func(snap *state.Snapshot, id string) (*typesv1.Config, bool) {
			o := snap.Config(id)
			return o, o != nil
		},
		All: func(snap *state.Snapshot) iter.Seq[*typesv1.Config] { return snap.Configs() },
		Build: func(m *typesv1.Meta, a *typesv1.Annotations, v []*typesv1.DataVersion, template bool) *typesv1.Config {
			return &typesv1.Config{Meta: m, Annotations: a, Versions: v, Template: template}
		},
		Payload: func(_ string, data []byte) (*typesv1.Payload, error) { return &typesv1.Payload{Clear: data}, nil },
		Refs:    (*typesv1.ContainerSpec).GetConfigs,
	}
}

// CreateConfig implements ConfigService.
func (s configs) CreateConfig(ctx context.Context, req *controlv1.CreateConfigRequest) (*controlv1.CreateConfigResponse, error) {
	id, err := s.requestID("create a config", req.GetRequestId())
	if err != nil {
		return nil, err
	}
	req = proto.CloneOf(req)
	req.RequestId = id
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.CreateConfigResponse, error) {
			o, err := s.vault().Create(ctx, caller, req.GetRequestId(), vault.Change{Annotations: req.GetAnnotations(), Data: req.GetData(), Template: req.GetTemplate()})
			return &controlv1.CreateConfigResponse{Config: o}, err
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.CreateConfigResponse, error) {
			return controlv1.NewConfigServiceClient(conn).CreateConfig(ctx, req)
		})
}

// UpdateConfig implements ConfigService.
func (s configs) UpdateConfig(ctx context.Context, req *controlv1.UpdateConfigRequest) (*controlv1.UpdateConfigResponse, error) {
	id, err := s.requestID("update a config", req.GetRequestId())
	if err != nil {
		return nil, err
	}
	req = proto.CloneOf(req)
	req.RequestId = id
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.UpdateConfigResponse, error) {
			o, rolled, err := s.vault().Update(ctx, caller, req.GetRequestId(),
				vault.Change{Ref: req.GetConfig(), Version: req.GetVersion(), Annotations: req.GetAnnotations(), Data: req.Data})
			return &controlv1.UpdateConfigResponse{Config: o, Services: rolled}, err
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.UpdateConfigResponse, error) {
			return controlv1.NewConfigServiceClient(conn).UpdateConfig(ctx, req)
		})
}

// GetConfig implements ConfigService.
func (s configs) GetConfig(ctx context.Context, req *controlv1.GetConfigRequest) (*controlv1.GetConfigResponse, error) {
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	o, err := s.vault().Find(snap, req.GetConfig())
	if err != nil {
		return nil, err
	}
	data, err := s.dataOf(snap, o, req.GetNumber())
	if err != nil {
		return nil, err
	}
	return &controlv1.GetConfigResponse{Config: o, Version: desk.VersionOf(snap, o.GetMeta()), Data: data}, nil
}

// dataOf is the data of one version, 0 being the one in force.
func (configs) dataOf(snap *state.Snapshot, o *typesv1.Config, number uint64) ([]byte, error) {
	if number == 0 {
		number = o.GetVersions()[0].GetNumber()
	}
	p := snap.Payload(state.PayloadID(o.GetMeta().GetId(), number))
	if p == nil {
		return nil, errs.New(errs.NotFound, "config %s has no version %d", o.GetAnnotations().GetName(), number)
	}
	return p.GetClear(), nil
}

// ListConfigs implements ConfigService.
func (s configs) ListConfigs(ctx context.Context, req *controlv1.ListConfigsRequest) (*controlv1.ListConfigsResponse, error) {
	rows, next, err := s.vault().Page(ctx, req.GetFilters(), req.GetPageSize(), req.GetPageToken())
	return &controlv1.ListConfigsResponse{Configs: rows, NextPageToken: next}, err
}

// DeleteConfig implements ConfigService.
func (s configs) DeleteConfig(ctx context.Context, req *controlv1.DeleteConfigRequest) (*controlv1.DeleteConfigResponse, error) {
	return onLeader(ctx, s.API, false,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.DeleteConfigResponse, error) {
			id, err := s.vault().Remove(ctx, caller, req.GetConfig())
			return &controlv1.DeleteConfigResponse{Id: id}, err
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.DeleteConfigResponse, error) {
			return controlv1.NewConfigServiceClient(conn).DeleteConfig(ctx, req)
		})
}
