package executor

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registry serves one image, repo:1, over plain HTTP; hosts.toml must say so, and that is part of the test.
type registry struct {
	host     string
	blobs    map[string][]byte
	manifest []byte
	probe    string       // its program, on this machine
	asked    atomic.Int32 // how often the manifest was asked for by its tag
	layer0   string       // digest of the layer

	mu       sync.Mutex // guards all below
	login    string     // user:password that it wants; empty: none
	fault    fault      // nil: none
	logins   []string   // that it was shown, in order
	requests int
}

// fault answers in the registry's place, or does not.
type fault func(w http.ResponseWriter, req *http.Request, data []byte) (answered bool)

// want changes what the registry asks for.
func (r *registry) want(login string, f fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.login, r.fault, r.logins = login, f, nil
}

// digest is that of the image.
func (r *registry) digest() string {
	sum := sha256.Sum256(r.manifest)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// heard are the logins that it was shown since.
func (r *registry) heard() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.logins)
}

// dockerImage is an image as Docker makes it: with a health check, of which the OCI knows nothing.
type dockerImage struct {
	ocispec.Image
	Config dockerFields `json:"config"`
}

type dockerFields struct {
	ocispec.ImageConfig
	Healthcheck map[string]any
}

func newRegistry(t *testing.T, certs string) *registry {
	t.Helper()
	r := &registry{blobs: map[string][]byte{}}
	layer := r.layer(t)
	r.layer0 = layer.Digest.String()
	config := r.put(t, ocispec.MediaTypeImageConfig, dockerImage{
		Image: ocispec.Image{
			Platform: ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
			RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
		},
		Config: dockerFields{
			ImageConfig: ocispec.ImageConfig{
				Entrypoint: []string{"/probe"}, Cmd: []string{"wait"}, StopSignal: "SIGUSR1", Env: []string{"GREETING=hello"},
				Volumes: map[string]struct{}{"/declared": {}},
			},
			Healthcheck: map[string]any{"Test": []string{"CMD", "look"}, "Interval": 7e9, "Retries": 2},
		},
	})
	r.put(t, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{layer},
	})
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "http://")
	hostsFile(t, certs, r.host, "server = \"http://"+r.host+"\"\n", nil)
	return r
}

// hostsFile says how a registry is reached, as containerd has it.
func hostsFile(t *testing.T, certs, host, text string, ca []byte) {
	t.Helper()
	dir := filepath.Join(certs, host)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"hosts.toml": []byte(text), "ca.pem": ca} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// sealed serves the same by TLS, with a certificate that only the CA explains that it returns.
func (r *registry) sealed(t *testing.T) (host string, ca []byte) {
	t.Helper()
	server := httptest.NewTLSServer(r)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "https://"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

func (r *registry) layer(t *testing.T) ocispec.Descriptor {
	t.Helper()
	r.probe = os.Getenv("SHOAL_PROBE") // where the machine has no Go, or a slow one
	if r.probe == "" {
		r.probe = filepath.Join(t.TempDir(), "probe")
		build := exec.Command("go", "build", "-o", r.probe, "./testdata/probe")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the probe: %v\n%s", err, out)
		}
	}
	data, err := os.ReadFile(r.probe)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, body := range map[string]string{
		"etc/passwd": "app:x:1234:99::/:/nope\n", "etc/group": "extra:x:77:app\nmore:x:88:\n", "probe": string(data), "seeded/from-image": "seed",
	} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return r.add(ocispec.MediaTypeImageLayer, buf.Bytes())
}

func (r *registry) put(t *testing.T, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if mediaType == ocispec.MediaTypeImageManifest {
		r.manifest = data
	}
	return r.add(mediaType, data)
}

func (r *registry) add(mediaType string, data []byte) ocispec.Descriptor {
	sum := sha256.Sum256(data)
	d := "sha256:" + hex.EncodeToString(sum[:])
	r.blobs[d] = data
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(d), Size: int64(len(data))}
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	name := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
	data := r.blobs[name]
	if name == "1" {
		r.asked.Add(1)
		data = r.manifest
	}
	r.mu.Lock()
	want, broken := r.login, r.fault
	r.requests++
	user, password, shown := req.BasicAuth()
	if shown {
		r.logins = append(r.logins, req.Host+" "+user+":"+password)
	}
	r.mu.Unlock()
	switch {
	case want != "" && user+":"+password != want:
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
	case broken != nil && broken(w, req, data):
	case req.URL.Path == "/v2/":
	case data == nil:
		w.WriteHeader(http.StatusNotFound)
	default:
		if strings.Contains(req.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		}
		sum := sha256.Sum256(data)
		w.Header().Set("Docker-Content-Digest", "sha256:"+hex.EncodeToString(sum[:]))
		_, _ = w.Write(data)
	}
}
