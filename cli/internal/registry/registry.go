// Package registry is the person's own side of registries: the logins that `docker login` has left, and what a tag means now.
//
// It owns how a registry is asked from where the command runs. It must never write a login anywhere, nor show one. A Client
// serves one command.
package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
)

// patience bounds the questions about one image: a person waits.
const patience = 10 * time.Second

// maxConfig bounds the file with a person's logins.
const maxConfig = 1 << 20

// Client asks registries for one person.
type Client struct {
	Files  run.Files
	Getenv func(string) string
}

// Image is what a tag means now.
type Image struct {
	// Ref has the digest: registry.example/web:1@sha256:…
	Ref string
	// Platforms that it has something for; none: it does not say.
	Platforms []*typesv1.Platform
}

// Login is what the person has for a registry. NotFound: nothing.
func (c *Client) Login(host string) (*typesv1.RegistryLogin, error) {
	file, err := c.config()
	if err != nil {
		return nil, err
	}
	auth, err := file.GetAuthConfig(key(host))
	if err != nil {
		return nil, errs.New(errs.Unavailable, "the login for %s: %w", host, err)
	}
	switch {
	case auth.IdentityToken != "":
		return &typesv1.RegistryLogin{Username: auth.Username, IdentityToken: auth.IdentityToken}, nil
	case auth.Username != "" && auth.Password != "":
		return &typesv1.RegistryLogin{Username: auth.Username, Password: auth.Password}, nil
	}
	return nil, errs.New(errs.NotFound, "there is no login for %s in %s; `docker login %s` makes one", host, c.path(), host)
}

// key is a registry's name in the file, and for the programs that it names: those take it to the letter.
func key(host string) string {
	if host == state.DefaultRegistry {
		return authn.DefaultAuthKey // https://index.docker.io/v1/
	}
	return host
}

func (c *Client) path() string {
	if dir := c.Getenv("DOCKER_CONFIG"); dir != "" {
		return path.Join(dir, "config.json")
	}
	return path.Join(c.Getenv("HOME"), ".docker", "config.json")
}

// config is the file that `docker login` writes; one that is not there is empty.
func (c *Client) config() (*configfile.ConfigFile, error) {
	info, err := c.Files.Stat(c.path())
	if err != nil {
		return configfile.New(c.path()), nil
	}
	if info.Size() > maxConfig {
		return nil, errs.New(errs.Invalid, "%s has %d bytes, which is too much", c.path(), info.Size())
	}
	data, err := c.Files.Read(c.path())
	if err != nil {
		return nil, err
	}
	file, err := config.LoadFromReader(strings.NewReader(string(data)))
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s does not read: %w", c.path(), err)
	}
	return file, nil
}

// Resolve asks what a tag means now. An image with a digest keeps it, and is asked for its platforms.
func (c *Client) Resolve(ctx context.Context, image string) (Image, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// The cluster judges names; what is none here is not asked for.
	ref, err := name.ParseReference(image)
	if err != nil {
		return Image{}, errs.New(errs.Invalid, "image %q: %w", image, err)
	}
	host, _, _ := strings.Cut(state.Repository(image), "/")
	auth := authn.Anonymous
	if login, err := c.Login(host); err == nil {
		auth = authn.FromConfig(authn.AuthConfig{Username: login.GetUsername(), Password: login.GetPassword(), IdentityToken: login.GetIdentityToken()})
	}
	transport, err := c.transport(host)
	if err != nil {
		return Image{}, err
	}
	desc, err := remote.Get(ref, remote.WithContext(ctx), remote.WithAuth(auth), remote.WithTransport(transport), remote.WithRetryPredicate(func(error) bool { return false }))
	if err != nil {
		return Image{}, errs.New(errs.Unavailable, "ask for image %q: %w", image, err)
	}
	out := Image{Ref: image, Platforms: platforms(desc)}
	if _, pinned := ref.(name.Digest); !pinned {
		out.Ref = image + "@" + desc.Digest.String()
	}
	return out, nil
}

// platforms are those of an index, or of the one image that there is. What can't be read does not say.
func platforms(desc *remote.Descriptor) []*typesv1.Platform {
	if !desc.MediaType.IsIndex() {
		img, err := desc.Image()
		if err != nil {
			return nil
		}
		cfg, err := img.ConfigFile()
		if err != nil {
			return nil
		}
		return add(nil, &v1.Platform{OS: cfg.OS, Architecture: cfg.Architecture})
	}
	index, err := desc.ImageIndex()
	if err != nil {
		return nil
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil
	}
	var out []*typesv1.Platform
	for _, m := range manifest.Manifests {
		out = add(out, m.Platform)
	}
	return out
}

// maxPlatforms is more than any image has.
const maxPlatforms = 64

// add leaves out what is none: attestations are of the platform "unknown".
func add(have []*typesv1.Platform, p *v1.Platform) []*typesv1.Platform {
	if p == nil || p.OS == "" || p.OS == "unknown" || p.Architecture == "" || len(have) == maxPlatforms {
		return have
	}
	for _, h := range have {
		if h.GetOs() == p.OS && h.GetArchitecture() == p.Architecture {
			return have
		}
	}
	return append(have, &typesv1.Platform{Os: p.OS, Architecture: p.Architecture})
}

// transport trusts what the system does and the CAs of this registry that containerd or Docker have on this machine.
func (c *Client) transport(host string) (http.RoundTripper, error) {
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("no transport")
	}
	t := base.Clone()
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, root := range []string{"/etc/containerd/certs.d", "/etc/docker/certs.d"} {
		dir := path.Join(root, host)
		entries, err := c.Files.List(dir)
		if err != nil {
			continue
		}
		for _, entry := range entries {
			if !strings.HasSuffix(entry, ".crt") {
				continue
			}
			if pem, err := c.Files.Read(path.Join(dir, entry)); err == nil {
				pool.AppendCertsFromPEM(pem)
			}
		}
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	t.DisableKeepAlives = true
	return sealed{t}, nil
}

// sealed asks in clear on this machine alone: the library would, in private networks, after TLS has failed.
type sealed struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (s sealed) RoundTrip(req *http.Request) (*http.Response, error) {
	host := req.URL.Hostname()
	addr, err := netip.ParseAddr(host)
	if req.URL.Scheme != "https" && host != "localhost" && (err != nil || !addr.IsLoopback()) {
		return nil, errs.New(errs.Denied, "%s is not asked without TLS", host)
	}
	return s.RoundTripper.RoundTrip(req)
}

// Warning is what Docker says when a registry could not be asked.
func Warning(image string) string {
	return "image " + image + " could not be accessed on a registry to record\nits digest. Each node will access " + image +
		" independently,\npossibly leading to different nodes running different\nversions of the image.\n"
}
