package command_test

import (
	"context"
	"maps"
	"slices"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/registry"
)

// loginsOf is what the fake cluster keeps of registries: as labels, what it was told, so that scripts see it.
type loginsOf struct {
	controlv1.UnimplementedRegistryServiceServer
	*cluster
}

func (f loginsOf) SetRegistry(_ context.Context, req *controlv1.SetRegistryRequest) (*controlv1.SetRegistryResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := req.GetLogin()
	f.logins[req.GetName()] = &typesv1.Registry{Meta: f.meta("reg"), Annotations: &typesv1.Annotations{
		Name: req.GetName() + "=" + l.GetUsername() + "/" + l.GetPassword() + "/" + l.GetIdentityToken(),
	}, Versions: []*typesv1.DataVersion{{Number: 1}}}
	return &controlv1.SetRegistryResponse{Registry: f.logins[req.GetName()]}, nil
}

func (f loginsOf) ListRegistries(context.Context, *controlv1.ListRegistriesRequest) (*controlv1.ListRegistriesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &controlv1.ListRegistriesResponse{}
	for _, name := range slices.Sorted(maps.Keys(f.logins)) {
		resp.Registries = append(resp.Registries, f.logins[name])
	}
	return resp, nil
}

func (f loginsOf) DeleteRegistry(_ context.Context, req *controlv1.DeleteRegistryRequest) (*controlv1.DeleteRegistryResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.logins[req.GetRegistry()] == nil {
		return nil, errs.New(errs.NotFound, "no such registry: %s", req.GetRegistry())
	}
	delete(f.logins, req.GetRegistry())
	return &controlv1.DeleteRegistryResponse{}, nil
}

// registryOf has one image, and the person has a login for it.
type registryOf struct{}

func (*registryOf) Login(host string) (*typesv1.RegistryLogin, error) {
	if host != "registry.example" {
		return nil, errs.New(errs.NotFound, "there is no login for %s in /home/ada/.docker/config.json", host)
	}
	return &typesv1.RegistryLogin{Username: "ada", Password: "left-by-docker"}, nil
}

func (*registryOf) Resolve(_ context.Context, image string) (registry.Image, error) {
	if image != "registry.example/app:1" {
		return registry.Image{}, errs.New(errs.Unavailable, "ask for image %q: no such host", image)
	}
	return registry.Image{
		Ref:       image + "@sha256:aa",
		Platforms: []*typesv1.Platform{{Os: "linux", Architecture: "amd64"}, {Os: "linux", Architecture: "arm64"}},
	}, nil
}
