package control

import (
	"context"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/admit"
	"github.com/shoalproject/shoal/services/store/internal/desk"
	"github.com/shoalproject/shoal/services/store/internal/payload"
	"github.com/shoalproject/shoal/services/store/internal/vault"
)

type secrets struct {
	controlv1.UnimplementedSecretServiceServer
	*API
}

func (s secrets) vault() vault.Vault[*typesv1.Secret] {
	return vault.Vault[*typesv1.Secret]{
		Office: s.office(), Kind: typesv1.Kind_KIND_SECRET, Most: admit.MaxSecret,
		Get: func(snap *state.Snapshot, id string) (*typesv1.Secret, bool) {
			o := snap.Secret(id)
			return o, o != nil
		},
		All: func(snap *state.Snapshot) iter.Seq[*typesv1.Secret] { return snap.Secrets() },
		Build: func(m *typesv1.Meta, a *typesv1.Annotations, v []*typesv1.DataVersion, template bool) *typesv1.Secret {
			return &typesv1.Secret{Meta: m, Annotations: a, Versions: v, Template: template}
		},
		Payload: func(id string, data []byte) (*typesv1.Payload, error) {
			sealed, err := payload.Seal(s.cfg.Keys, s.cfg.Rand, id, data)
			return &typesv1.Payload{Sealed: sealed}, err
		},
		Refs: (*typesv1.ContainerSpec).GetSecrets,
	}
}

// CreateSecret implements SecretService.
func (s secrets) CreateSecret(ctx context.Context, req *controlv1.CreateSecretRequest) (*controlv1.CreateSecretResponse, error) {
	id, err := s.requestID("create a secret", req.GetRequestId())
	if err != nil {
		return nil, err
	}
	req = proto.CloneOf(req)
	req.RequestId = id
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.CreateSecretResponse, error) {
			o, err := s.vault().Create(ctx, caller, req.GetRequestId(), vault.Change{Annotations: req.GetAnnotations(), Data: req.GetData(), Template: req.GetTemplate()})
			return &controlv1.CreateSecretResponse{Secret: o}, err
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.CreateSecretResponse, error) {
			return controlv1.NewSecretServiceClient(conn).CreateSecret(ctx, req)
		})
}

// UpdateSecret implements SecretService.
func (s secrets) UpdateSecret(ctx context.Context, req *controlv1.UpdateSecretRequest) (*controlv1.UpdateSecretResponse, error) {
	id, err := s.requestID("update a secret", req.GetRequestId())
	if err != nil {
		return nil, err
	}
	req = proto.CloneOf(req)
	req.RequestId = id
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.UpdateSecretResponse, error) {
			o, rolled, err := s.vault().Update(ctx, caller, req.GetRequestId(),
				vault.Change{Ref: req.GetSecret(), Version: req.GetVersion(), Annotations: req.GetAnnotations(), Data: req.Data})
			return &controlv1.UpdateSecretResponse{Secret: o, Services: rolled}, err
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.UpdateSecretResponse, error) {
			return controlv1.NewSecretServiceClient(conn).UpdateSecret(ctx, req)
		})
}

// GetSecret implements SecretService.
func (s secrets) GetSecret(ctx context.Context, req *controlv1.GetSecretRequest) (*controlv1.GetSecretResponse, error) {
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	o, err := s.vault().Find(snap, req.GetSecret())
	if err != nil {
		return nil, err
	}
	return &controlv1.GetSecretResponse{Secret: o, Version: desk.VersionOf(snap, o.GetMeta())}, nil
}

// ListSecrets implements SecretService.
func (s secrets) ListSecrets(ctx context.Context, req *controlv1.ListSecretsRequest) (*controlv1.ListSecretsResponse, error) {
	rows, next, err := s.vault().Page(ctx, req.GetFilters(), req.GetPageSize(), req.GetPageToken())
	return &controlv1.ListSecretsResponse{Secrets: rows, NextPageToken: next}, err
}

// DeleteSecret implements SecretService.
func (s secrets) DeleteSecret(ctx context.Context, req *controlv1.DeleteSecretRequest) (*controlv1.DeleteSecretResponse, error) {
	return onLeader(ctx, s.API, false,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.DeleteSecretResponse, error) {
			id, err := s.vault().Remove(ctx, caller, req.GetSecret())
			return &controlv1.DeleteSecretResponse{Id: id}, err
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.DeleteSecretResponse, error) {
			return controlv1.NewSecretServiceClient(conn).DeleteSecret(ctx, req)
		})
}
