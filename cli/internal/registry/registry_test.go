package registry_test

import (
	"encoding/base64"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	server "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"google.golang.org/protobuf/testing/protocmp"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/testx"

	"github.com/shoalproject/shoal/cli/internal/registry"
)

const config = "/home/ada/.docker/config.json"

func client(t *testing.T) *registry.Client {
	t.Helper()
	return &registry.Client{Files: testx.Env(t).Files, Getenv: func(k string) string { return map[string]string{"HOME": "/home/ada"}[k] }}
}

func write(t *testing.T, c *registry.Client, path, text string) {
	t.Helper()
	if err := c.Files.Write(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestResolve: a tag becomes the digest that it has now, with the platforms that there are; a registry with a private CA and a
// password is asked with the person's own; one that cannot be asked says so.
func TestResolve(t *testing.T) {
	plain := server.New(server.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)))
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if user, password, _ := req.BasicAuth(); user+":"+password != "ada:hunter2" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		plain.ServeHTTP(w, req)
	}))
	t.Cleanup(srv.Close)
	open := httptest.NewServer(plain)
	t.Cleanup(open.Close)
	host, image := strings.TrimPrefix(srv.URL, "https://"), "/team/web:1"

	index := mutate.IndexMediaType(empty.Index, "application/vnd.oci.image.index.v1+json")
	for _, p := range []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64", Variant: "v8"}, {OS: "unknown", Architecture: "unknown"}} {
		img, err := random.Image(64, 1)
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	ref, err := name.ParseReference(strings.TrimPrefix(open.URL, "http://") + image)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}

	c := client(t)
	if _, err := c.Resolve(t.Context(), host+image); !errs.Is(err, errs.Unavailable) {
		t.Errorf("a registry whose CA nobody knows: %v", err)
	}
	write(t, c, "/etc/containerd/certs.d/"+host+"/ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	if _, err := c.Resolve(t.Context(), host+image); !errs.Is(err, errs.Unavailable) {
		t.Errorf("without a password: %v", err)
	}
	write(t, c, config, `{"auths":{"`+host+`":{"auth":"`+base64.StdEncoding.EncodeToString([]byte("ada:hunter2"))+`"}}}`)
	want := registry.Image{
		Ref:       host + image + "@" + digest.String(),
		Platforms: []*typesv1.Platform{{Os: "linux", Architecture: "amd64"}, {Os: "linux", Architecture: "arm64"}},
	}
	for _, asked := range []string{host + image, want.Ref} {
		got, err := c.Resolve(t.Context(), asked)
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", asked, err, diff)
		}
	}
	if _, err := c.Resolve(t.Context(), host+"/team/none:1"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("an image that is not there: %v", err)
	}
	if _, err := c.Resolve(t.Context(), "UPPER CASE"); !errs.Is(err, errs.Invalid) {
		t.Errorf("a name that is none: %v", err)
	}
}

// TestLogin: what docker login leaves, in its forms.
func TestLogin(t *testing.T) {
	c := client(t)
	if _, err := c.Login("r.example"); !errs.Is(err, errs.NotFound) {
		t.Errorf("without a file: %v", err)
	}
	write(t, c, config, `{"auths":{
		"r.example":{"auth":"`+base64.StdEncoding.EncodeToString([]byte("ada:hunter2"))+`"},
		"https://index.docker.io/v1/":{"auth":"`+base64.StdEncoding.EncodeToString([]byte("ada:hub"))+`"},
		"tokens.example":{"auth":"`+base64.StdEncoding.EncodeToString([]byte("00000000-0000-0000-0000-000000000000:"))+`","identitytoken":"refresh"}}}`)
	for host, want := range map[string]*typesv1.RegistryLogin{
		"r.example":      {Username: "ada", Password: "hunter2"},
		"docker.io":      {Username: "ada", Password: "hub"},
		"tokens.example": {Username: "00000000-0000-0000-0000-000000000000", IdentityToken: "refresh"},
	} {
		got, err := c.Login(host)
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", host, err, diff)
		}
	}
	if _, err := c.Login("other.example"); !errs.Is(err, errs.NotFound) {
		t.Errorf("another host: %v", err)
	}
	// A program that keeps the logins takes the name of Docker's registry to the letter.
	bin := t.TempDir()
	program := "#!/bin/sh\nread -r host\n[ \"$host\" = https://index.docker.io/v1/ ] || { echo credentials not found in native keychain; exit 1; }\n" +
		`echo '{"Username":"ada","Secret":"kept"}'` + "\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-kept"), []byte(program), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	write(t, c, config, `{"credsStore":"kept"}`)
	if got, err := c.Login("docker.io"); got.GetPassword() != "kept" {
		t.Errorf("docker.io has the login %v, %v", got, err)
	}
	write(t, c, config, `{"auths": hunter2`)
	if _, err := c.Login("r.example"); !errs.Is(err, errs.Invalid) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a file that does not read: %v", err)
	}
}
