package control

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/keyset"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

func withKey(t *testing.T) (*API, *alone, context.Context) {
	t.Helper()
	a, node, ctx := newAPI(t)
	keys := keyset.NewHolder()
	keys.Set(keyset.New(run.NewRand(2), "c"))
	a.cfg.Keys = keys
	return a, node, ctx
}

func named(name string) *typesv1.Annotations { return &typesv1.Annotations{Name: name} }

func withSecret(name string, refs ...*typesv1.FileReference) *typesv1.ServiceSpec {
	s := serviceSpec(name)
	s.Task.Container.Secrets = refs
	return s
}

// TestSecretRolls: new data is a new version, every service that has not pinned its version gets a new spec version in the
// same commit, old data stays while a kept spec refers to it, and goes when none does.
func TestSecretRolls(t *testing.T) {
	a, node, ctx := withKey(t)
	s := secrets{API: a}
	made, err := s.CreateSecret(ctx, &controlv1.CreateSecretRequest{Annotations: named("db.password"), Data: []byte("first")})
	if err != nil {
		t.Fatal(err)
	}
	id := made.GetSecret().GetMeta().GetId()
	for name, ref := range map[string]*typesv1.FileReference{"web": {Id: "db.password"}, "pinned": {Id: id, Version: 1, Pinned: true}} {
		if _, err := (services{API: a}).CreateService(ctx, &controlv1.CreateServiceRequest{Spec: withSecret(name, ref)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 12 {
		up, err := s.UpdateSecret(ctx, &controlv1.UpdateSecretRequest{Secret: "db.password", Data: []byte{byte(i)}})
		if err != nil || !slices.Equal(up.GetServices(), []string{"web"}) {
			t.Fatalf("update %d: %v rolled, %v", i, up.GetServices(), err)
		}
	}
	snap := node.machine.Snapshot()
	web := snap.ServiceByName("web")
	if r := web.GetSpec().GetTask().GetContainer().GetSecrets()[0]; r.GetVersion() != 13 || web.GetSpecVersion() != 13 || r.GetTarget() != "db.password" || r.GetMode() != 0o444 {
		t.Errorf("web has %v in spec version %d", r, web.GetSpecVersion())
	}
	if v := snap.ServiceByName("pinned").GetSpecVersion(); v != 1 {
		t.Errorf("the pinned service is at spec version %d", v)
	}
	var have []uint64
	for _, v := range snap.Secret(id).GetVersions() {
		have = append(have, v.GetNumber())
		if snap.Payload(state.PayloadID(id, v.GetNumber())) == nil {
			t.Errorf("version %d has no data", v.GetNumber())
		}
	}
	// 13 is in force, 3 to 12 are in web's history, and 1 is pinned.
	if want := []uint64{13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 1}; !slices.Equal(have, want) || snap.Count(typesv1.Kind_KIND_PAYLOAD) != len(want) {
		t.Errorf("versions %v and %d payloads, want %v", have, snap.Count(typesv1.Kind_KIND_PAYLOAD), want)
	}
	if _, err := s.DeleteSecret(ctx, &controlv1.DeleteSecretRequest{Secret: "db.password"}); !errors.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "in use by service pinned and web") {
		t.Errorf("delete in use: %v", err)
	}
	for _, name := range []string{"web", "pinned"} {
		if _, err := (services{API: a}).DeleteService(ctx, &controlv1.DeleteServiceRequest{Service: name}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.DeleteSecret(ctx, &controlv1.DeleteSecretRequest{Secret: id[:8]}); err != nil || node.machine.Snapshot().Count(typesv1.Kind_KIND_PAYLOAD) != 0 {
		t.Errorf("delete: %v, and %d payloads stay", err, node.machine.Snapshot().Count(typesv1.Kind_KIND_PAYLOAD))
	}
}

// TestSecretIsSealed: the data of a secret is nowhere in the state in clear, and no answer has it; a config's is read back.
func TestSecretIsSealed(t *testing.T) {
	a, node, ctx := withKey(t)
	data := []byte("a very secret text")
	if _, err := (secrets{API: a}).CreateSecret(ctx, &controlv1.CreateSecretRequest{Annotations: named("s"), Data: data}); err != nil {
		t.Fatal(err)
	}
	for o := range node.machine.Snapshot().Objects(state.Kinds()...) {
		if raw, err := proto.Marshal(o); err != nil || bytes.Contains(raw, data) {
			t.Errorf("%s has the data in clear (%v)", state.KeyOf(o), err)
		}
	}
	if _, err := (configs{API: a}).CreateConfig(ctx, &controlv1.CreateConfigRequest{Annotations: named("s"), Data: data}); err != nil {
		t.Fatal(err)
	}
	got, err := configs{API: a}.GetConfig(ctx, &controlv1.GetConfigRequest{Config: "s"})
	if err != nil || !bytes.Equal(got.GetData(), data) {
		t.Errorf("config: %q, %v", got.GetData(), err)
	}
}

// TestWithoutTheKey: a store that has not been given the key keeps nothing.
func TestWithoutTheKey(t *testing.T) {
	a, node, ctx := newAPI(t)
	a.cfg.Keys = keyset.NewHolder()
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err := secrets{API: a}.CreateSecret(ctx, &controlv1.CreateSecretRequest{Annotations: named("s"), Data: []byte("x")})
	if !errors.Is(err, errs.Unavailable) || node.machine.Snapshot().Count(typesv1.Kind_KIND_SECRET) != 0 {
		t.Errorf("created without a key: %v", err)
	}
}

// TestBadFiles: every fault of what a service asks for is named at once.
func TestBadFiles(t *testing.T) {
	a, _, ctx := withKey(t)
	if _, err := (secrets{API: a}).CreateSecret(ctx, &controlv1.CreateSecretRequest{Annotations: named("s"), Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	mode := uint32(0o1777)
	_, err := services{API: a}.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: withSecret("web",
		&typesv1.FileReference{Id: "nope"}, &typesv1.FileReference{Id: "s"}, &typesv1.FileReference{Id: "s"},
		&typesv1.FileReference{Id: "s", Version: 7, Pinned: true, Target: "../x", Mode: &mode})})
	for _, want := range []string{
		`secrets[0]: no secret "nope"`, `secrets[2].target: /run/secrets/s is the place of secrets[1] already`,
		`secrets[3].version: secret "s" has no version 7`, `secrets[3].target: "../x" is no path of a file`, `secrets[3].mode: 1777`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	_, err = secrets{API: a}.CreateSecret(ctx, &controlv1.CreateSecretRequest{Annotations: named("a b"), Data: make([]byte, 500<<10+1)})
	if len(errs.FaultsOf(err)) != 2 {
		t.Errorf("a bad name and too much data: %v", err)
	}
}

// TestTemplate: data with placeholders is looked at each time that it comes, without a word of it in the fault; a service that
// uses it is told of its kind, whatever the request says.
func TestTemplate(t *testing.T) {
	a, _, ctx := withKey(t)
	s := secrets{API: a}
	const bad, good = "hidden {{.Colour}}", `{{.Task.Slot}} {{env "A"}} {{secret "b"}}`
	_, err := s.CreateSecret(ctx, &controlv1.CreateSecretRequest{Annotations: named("t"), Data: []byte(bad), Template: true})
	if err == nil || !strings.Contains(err.Error(), "data: line 1: a placeholder is not known") || strings.Contains(err.Error(), "hidden") {
		t.Errorf("an unknown placeholder: %v", err)
	}
	for name, template := range map[string]bool{"t": true, "plain": false} {
		if _, err := s.CreateSecret(ctx, &controlv1.CreateSecretRequest{Annotations: named(name), Data: []byte(good), Template: template}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.UpdateSecret(ctx, &controlv1.UpdateSecretRequest{Secret: "t", Data: []byte(bad)}); err == nil {
		t.Error("an update took an unknown placeholder")
	}
	if _, err := s.UpdateSecret(ctx, &controlv1.UpdateSecretRequest{Secret: "plain", Data: []byte(bad)}); err != nil {
		t.Errorf("data without placeholders: %v", err)
	}
	up, err := s.UpdateSecret(ctx, &controlv1.UpdateSecretRequest{Secret: "t", Data: []byte(good + "!")})
	if err != nil || !up.GetSecret().GetTemplate() {
		t.Errorf("after an update: %v, %v", up, err)
	}
	made, err := services{API: a}.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: withSecret("web",
		&typesv1.FileReference{Id: "t"}, &typesv1.FileReference{Id: "plain", Template: true})})
	if refs := made.GetService().GetSpec().GetTask().GetContainer().GetSecrets(); err != nil || !refs[0].GetTemplate() || refs[1].GetTemplate() {
		t.Errorf("the service has %v, %v", refs, err)
	}
}
