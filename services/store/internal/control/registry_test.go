package control

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestLoginChangesNothingElse: a login is kept sealed under its name, a new one takes its place and leaves no service, no
// task and no other payload behind it changed, it is in no answer, and it goes with its registry.
func TestLoginChangesNothingElse(t *testing.T) {
	a, node, ctx := withKey(t)
	s := registries{API: a}
	spec := serviceSpec("web")
	spec.Task.Container.Image = "r.example:5000/team/web:1"
	made, err := (services{API: a}).CreateService(ctx, &controlv1.CreateServiceRequest{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	before := node.machine.Snapshot().Service(made.GetService().GetMeta().GetId())
	ids := map[string]bool{}
	for _, password := range []string{"hunter2", "hunter3", "hunter4"} {
		resp, err := s.SetRegistry(ctx, &controlv1.SetRegistryRequest{
			Name: "r.example:5000/team", Login: &typesv1.RegistryLogin{Username: "ada", Password: password},
		})
		if err != nil {
			t.Fatal(err)
		}
		snap := node.machine.Snapshot()
		ids[snap.LoginID(spec.GetTask().GetContainer().GetImage())] = true
		for o := range snap.Objects(typesv1.Kind_KIND_PAYLOAD) {
			if raw, _ := proto.Marshal(o); bytes.Contains(raw, []byte(password)) || bytes.Contains(raw, []byte("ada")) || o.GetPayload().GetLogin() == nil {
				t.Errorf("the login is kept in clear: %v", o)
			}
		}
		if raw, _ := proto.Marshal(resp); bytes.Contains(raw, []byte(password)) {
			t.Errorf("the answer shows the login: %v", resp)
		}
		if n := snap.Count(typesv1.Kind_KIND_PAYLOAD); n != 1 {
			t.Errorf("%d payloads, want 1", n)
		}
	}
	if len(ids) != 3 || ids[""] {
		t.Errorf("three logins have the ids %v", ids)
	}
	if after := node.machine.Snapshot().Service(made.GetService().GetMeta().GetId()); !proto.Equal(before, after) {
		t.Errorf("the service changed:\n%v\n%v", before, after)
	}
	listed, err := s.ListRegistries(ctx, &controlv1.ListRegistriesRequest{})
	if err != nil || len(listed.GetRegistries()) != 1 || listed.GetRegistries()[0].GetAnnotations().GetName() != "r.example:5000/team" {
		t.Errorf("listed %v, %v", listed, err)
	}
	if _, err := s.DeleteRegistry(ctx, &controlv1.DeleteRegistryRequest{Registry: "r.example:5000/team"}); err != nil {
		t.Fatal(err)
	}
	if snap := node.machine.Snapshot(); snap.Count(typesv1.Kind_KIND_PAYLOAD)+snap.Count(typesv1.Kind_KIND_REGISTRY) != 0 {
		t.Error("something of the login is left")
	}
}

// TestLoginOfAServiceYields: what came with a service counts for its image, until a person gives a login for the host, or for a part
// that it is in; what a person gave for a part stays, and what comes with a service later counts again.
func TestLoginOfAServiceYields(t *testing.T) {
	a, node, ctx := withKey(t)
	s := registries{API: a}
	set := func(name string, byService bool) string {
		t.Helper()
		r, err := s.SetRegistry(ctx, &controlv1.SetRegistryRequest{
			Name: name, ByService: byService, Login: &typesv1.RegistryLogin{Username: "ada", Password: "x"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetRegistry().GetMeta().GetId()
	}
	is := func(image, want string) {
		t.Helper()
		if got := node.machine.Snapshot().RegistryOf(image).GetMeta().GetId(); got != want {
			t.Errorf("%s has the login %s, want %s", image, got, want)
		}
	}
	set("r.example/team/web", true)
	neighbour := set("r.example2/team/web", true)
	part := set("r.example/own", false)
	host := set("r.example", false)
	is("r.example/team/web:1", host)
	is("r.example2/team/web:1", neighbour)
	is("r.example/own/x:1", part)
	if n := node.machine.Snapshot().Count(typesv1.Kind_KIND_PAYLOAD); n != 3 {
		t.Errorf("%d payloads, want those of 3 logins", n)
	}
	again := set("r.example/team/web", true)
	is("r.example/team/web:1", again)
	set("r.example/team/web", false) // now a person's
	set("r.example", false)
	is("r.example/team/web:1", again)
}

// TestLoginFaults: what is no registry or no login is refused in the call.
func TestLoginFaults(t *testing.T) {
	a, _, ctx := withKey(t)
	s := registries{API: a}
	whole := &typesv1.RegistryLogin{Username: "ada", Password: "x"}
	for name, c := range map[string]struct {
		name  string
		login *typesv1.RegistryLogin
	}{
		"no name":            {"", whole},
		"a scheme":           {"https://r.example", whole},
		"no host":            {"team/web", whole},
		"a tag":              {"r.example/web:1", whole},
		"a digest":           {"r.example/web@sha256:aa", whole},
		"upper case":         {"R.example", whole},
		"a slash at the end": {"r.example/", whole},
		"no login":           {"r.example", nil},
		"no password":        {"r.example", &typesv1.RegistryLogin{Username: "ada"}},
		"no user":            {"r.example", &typesv1.RegistryLogin{Password: "x"}},
		"both":               {"r.example", &typesv1.RegistryLogin{Username: "ada", Password: "x", IdentityToken: "y"}},
		"a colon":            {"r.example", &typesv1.RegistryLogin{Username: "a:b", Password: "x"}},
	} {
		if _, err := s.SetRegistry(ctx, &controlv1.SetRegistryRequest{Name: c.name, Login: c.login}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"r.example", "localhost", "localhost:5000/a/b", "10.0.0.1:5000", "[fd00::1]:5000/x", "docker.io/library/nginx", "r.example/a_b/c-d"} {
		if _, err := s.SetRegistry(ctx, &controlv1.SetRegistryRequest{Name: name, Login: whole}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := state.Repository("r.example/a_b/c-d:1"); got != "r.example/a_b/c-d" {
		t.Errorf("repository %s", got)
	}
}
