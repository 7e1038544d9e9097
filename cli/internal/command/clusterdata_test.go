package command_test

import (
	"context"
	"maps"
	"slices"

	"github.com/shoalproject/shoal/internal/errs"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// secretsOf is what the fake cluster keeps of secrets; configs are tested by the same commands.
type secretsOf struct {
	controlv1.UnimplementedSecretServiceServer
	*cluster
}

func (f secretsOf) CreateSecret(_ context.Context, req *controlv1.CreateSecretRequest) (*controlv1.CreateSecretResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := req.GetAnnotations().GetName()
	if f.secrets[name] != nil {
		return nil, errs.New(errs.Exists, "create secret %q: there is one of that name", name)
	}
	s := &typesv1.Secret{Meta: f.meta("sec"), Annotations: req.GetAnnotations(), Versions: []*typesv1.DataVersion{{Number: 1, Bytes: uint64(len(req.GetData()))}}}
	f.secrets[name] = s
	return &controlv1.CreateSecretResponse{Secret: s}, nil
}

func (f secretsOf) secret(name string) (*typesv1.Secret, error) {
	if s := f.secrets[name]; s != nil {
		return s, nil
	}
	return nil, errs.New(errs.NotFound, "no such secret: %s", name)
}

func (f secretsOf) UpdateSecret(_ context.Context, req *controlv1.UpdateSecretRequest) (*controlv1.UpdateSecretResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.secret(req.GetSecret())
	if err != nil {
		return nil, err
	}
	if req.GetAnnotations() != nil {
		s.Annotations.Labels = req.GetAnnotations().GetLabels()
	}
	if req.Data == nil {
		return &controlv1.UpdateSecretResponse{Secret: s}, nil
	}
	s.Versions = append([]*typesv1.DataVersion{{Number: s.GetVersions()[0].GetNumber() + 1, Bytes: uint64(len(req.GetData()))}}, s.GetVersions()...)
	return &controlv1.UpdateSecretResponse{Secret: s, Services: slices.Sorted(maps.Keys(f.services))}, nil
}

func (f secretsOf) GetSecret(_ context.Context, req *controlv1.GetSecretRequest) (*controlv1.GetSecretResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.secret(req.GetSecret())
	return &controlv1.GetSecretResponse{Secret: s}, err
}

func (f secretsOf) ListSecrets(context.Context, *controlv1.ListSecretsRequest) (*controlv1.ListSecretsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &controlv1.ListSecretsResponse{}
	for _, name := range slices.Sorted(maps.Keys(f.secrets)) {
		resp.Secrets = append(resp.Secrets, f.secrets[name])
	}
	return resp, nil
}

func (f secretsOf) DeleteSecret(_ context.Context, req *controlv1.DeleteSecretRequest) (*controlv1.DeleteSecretResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.secret(req.GetSecret())
	delete(f.secrets, req.GetSecret())
	return &controlv1.DeleteSecretResponse{Id: s.GetMeta().GetId()}, err
}
