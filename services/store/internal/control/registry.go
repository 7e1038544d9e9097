package control

import (
	"context"
	"iter"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/admit"
	"github.com/shoalproject/shoal/services/store/internal/payload"
	"github.com/shoalproject/shoal/services/store/internal/vault"
)

type registries struct {
	controlv1.UnimplementedRegistryServiceServer
	*API
}

// vault keeps logins; those that it makes come with a service, or from a person.
func (s registries) vault(byService bool) vault.Vault[*typesv1.Registry] {
	return vault.Vault[*typesv1.Registry]{
		Office: s.office(), Kind: typesv1.Kind_KIND_REGISTRY, Most: admit.MaxLogin,
		Get: func(snap *state.Snapshot, id string) (*typesv1.Registry, bool) {
			o := snap.Registry(id)
			return o, o != nil
		},
		All: func(snap *state.Snapshot) iter.Seq[*typesv1.Registry] { return snap.Registries() },
		Build: func(m *typesv1.Meta, a *typesv1.Annotations, v []*typesv1.DataVersion, _ bool) *typesv1.Registry {
			return &typesv1.Registry{Meta: m, Annotations: a, Versions: v, ByService: byService}
		},
		Fields: []string{"by_service"},
		Yield: func(snap *state.Snapshot, name string) (out []*typesv1.Registry) {
			for r := range snap.Registries() {
				if !byService && r.GetByService() && strings.HasPrefix(r.GetAnnotations().GetName(), name+"/") {
					out = append(out, r)
				}
			}
			return out
		},
		Payload: func(id string, data []byte) (*typesv1.Payload, error) {
			sealed, err := payload.Seal(s.cfg.Keys, s.cfg.Rand, id, data)
			return &typesv1.Payload{Login: sealed}, err
		},
		// No spec names a registry: a new login rolls nothing and keeps no old one.
		Refs: func(*typesv1.ContainerSpec) []*typesv1.FileReference { return nil },
	}
}

// SetRegistry implements RegistryService.
func (s registries) SetRegistry(ctx context.Context, req *controlv1.SetRegistryRequest) (*controlv1.SetRegistryResponse, error) {
	id, err := s.requestID("keep a registry's login", req.GetRequestId())
	if err != nil {
		return nil, err
	}
	if err := admit.Login(req.GetLogin()); err != nil {
		return nil, err
	}
	req = proto.CloneOf(req)
	req.RequestId = id
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.SetRegistryResponse, error) {
			login, err := proto.Marshal(req.GetLogin())
			if err != nil {
				return nil, err
			}
			o, err := s.vault(req.GetByService()).Set(ctx, caller, req.GetRequestId(), vault.Change{
				Annotations: &typesv1.Annotations{Name: req.GetName(), Labels: req.GetLabels()}, Data: login,
			})
			return &controlv1.SetRegistryResponse{Registry: o}, err
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.SetRegistryResponse, error) {
			return controlv1.NewRegistryServiceClient(conn).SetRegistry(ctx, req)
		})
}

// ListRegistries implements RegistryService.
func (s registries) ListRegistries(ctx context.Context, req *controlv1.ListRegistriesRequest) (*controlv1.ListRegistriesResponse, error) {
	rows, next, err := s.vault(false).Page(ctx, req.GetFilters(), req.GetPageSize(), req.GetPageToken())
	return &controlv1.ListRegistriesResponse{Registries: rows, NextPageToken: next}, err
}

// DeleteRegistry implements RegistryService.
func (s registries) DeleteRegistry(ctx context.Context, req *controlv1.DeleteRegistryRequest) (*controlv1.DeleteRegistryResponse, error) {
	return onLeader(ctx, s.API, false,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.DeleteRegistryResponse, error) {
			id, err := s.vault(false).Remove(ctx, caller, req.GetRegistry())
			return &controlv1.DeleteRegistryResponse{Id: id}, err
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.DeleteRegistryResponse, error) {
			return controlv1.NewRegistryServiceClient(conn).DeleteRegistry(ctx, req)
		})
}
