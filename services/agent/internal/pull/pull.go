// Package pull gets images from registries into containerd.
//
// It owns how a registry is asked: by containerd's own hosts.toml (mirrors, private CAs), with the cluster's login for it or
// that of a credential helper of this machine, how long it may be silent, and what follows a try that failed (package
// verdict). A login is shown to the registry that it is for and to nobody else, and is in no message. It must never decide
// which images are needed. A Puller is safe for concurrent use; each pull has its own state.
package pull

import (
	"context"
	"log/slog"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/pull/verdict"
)

// Config says how registries are asked.
type Config struct {
	CertsDir string            // hosts.toml by registry
	AtOnce   int               // images pulled at once; 0: DefaultAtOnce
	Stall    time.Duration     // the longest silence of a registry; 0: DefaultStall
	Helpers  map[string]string // credential helpers by registry: ecr-login is the program docker-credential-ecr-login
}

// Defaults.
const (
	// DefaultAtOnce is how many images are pulled at once: the network is the limit, and a slow registry must not hold another.
	DefaultAtOnce = 4
	// DefaultStall is far above what a registry that works takes between two packets.
	DefaultStall = 30 * time.Second
)

const leaseTimeout = 10 * time.Second

// Puller pulls images.
type Puller struct {
	cfg         Config
	log         *slog.Logger
	client      *containerd.Client
	snapshotter string
	slots       chan struct{}
}

// New makes one.
func New(cfg Config, logger *slog.Logger, client *containerd.Client, snapshotter string) *Puller {
	if cfg.AtOnce == 0 {
		cfg.AtOnce = DefaultAtOnce
	}
	if cfg.Stall == 0 {
		cfg.Stall = DefaultStall
	}
	return &Puller{cfg: cfg, log: logger, client: client, snapshotter: snapshotter, slots: make(chan struct{}, cfg.AtOnce)}
}

// LabelPulled marks images that were pulled here: what somebody has imported by hand may be nowhere else.
const LabelPulled = "io.shoal.pulled"

// Pull gets and unpacks an image, whose reference is in full, in the namespace of ctx. It tells how far it is, not more often
// than every tellEvery, and why it waits. Errors: Unavailable (the login has not come), Precondition (the end, in words for a
// person), or containerd's own.
func (p *Puller) Pull(ctx context.Context, ref string, login container.Login, tell func(string)) (containerd.Image, error) {
	if login.Awaited {
		return nil, errs.New(errs.Unavailable, "waits for the login of %s", hostOf(ref))
	}
	for try := 1; ; try++ {
		img, evidence, err := p.turn(ctx, ref, login, tell)
		if err == nil {
			return img, nil
		}
		if evidence == nil {
			return nil, err
		}
		v := verdict.Of(*evidence, try)
		if v.Final {
			return nil, errs.New(errs.Precondition, "pull image %q: %s", ref, v.Words)
		}
		p.log.Warn("an image was not pulled, will retry", "image", ref, "try", try, "after", v.After.String(), "error", v.Words)
		tell(v.Words + "; tries again in " + v.After.String())
		if err := run.Sleep(ctx, v.After); err != nil {
			return nil, err
		}
	}
}

// turn makes one try when it has its turn. Without evidence the error is not the registry's.
func (p *Puller) turn(ctx context.Context, ref string, login container.Login, tell func(string)) (containerd.Image, *verdict.Evidence, error) {
	select {
	case p.slots <- struct{}{}:
	default:
		tell("waits until fewer images are pulled at once")
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	defer func() { <-p.slots }()
	return p.try(ctx, ref, login, tell)
}

// try asks the registry once.
func (p *Puller) try(ctx context.Context, ref string, login container.Login, tell func(string)) (containerd.Image, *verdict.Evidence, error) {
	p.log.Info("pulling an image", "image", ref)
	// The lease is ours: the client would give back its own with a context that a stall has ended, that is not at all.
	ctx, done, err := p.client.WithLease(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseTimeout)
		defer cancel()
		if err := done(bound); err != nil {
			p.log.Debug("a lease was not given back", "image", ref, "error", err)
		}
	}()
	own, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	m := &meter{stall: p.cfg.Stall, stop: stop, tell: tell, bytes: map[string]*part{}, told: time.Now()}
	host := hostOf(ref)
	resolver := docker.NewResolver(docker.ResolverOptions{
		// hosts.toml is read at each use, so that a mirror or a certificate can be added without a restart.
		Hosts: config.ConfigureHosts(own, config.HostOptions{
			HostDir: config.HostDirFromRoot(p.cfg.CertsDir), UpdateClient: m.wrap,
			Credentials: func(asks string) (string, string, error) {
				user, secret, err := p.credentials(own, host, asks, login)
				m.shown(err == nil && secret != "")
				return user, secret, err
			},
		}),
	})
	defer time.AfterFunc(tellFirst, func() { m.tellNow() }).Stop()
	img, err := p.client.Pull(own, ref, p.mark(ctx, ref), containerd.WithPullUnpack, containerd.WithPullSnapshotter(p.snapshotter),
		containerd.WithResolver(counted{resolver, m}), containerd.WithImageHandlerWrapper(m.sizes(p.client.ContentStore())))
	if err == nil {
		return img, nil, nil
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	e := m.evidence(context.Cause(own), err)
	if e == nil {
		return nil, nil, err
	}
	if e.Fault == verdict.Corrupt {
		p.discard(ctx, m) // or the next try would take it up where this one ended
	}
	e.Host = host
	return nil, e, err
}

// mark labels what is pulled as ours, unless somebody else has an image of the name here, though not a whole one.
func (p *Puller) mark(ctx context.Context, ref string) containerd.RemoteOpt {
	if had, err := p.client.ImageService().Get(ctx, ref); err == nil && had.Labels[LabelPulled] == "" {
		return func(*containerd.Client, *containerd.RemoteContext) error { return nil }
	}
	return containerd.WithPullLabel(LabelPulled, "true")
}

// credentials are what a host hears that asks for them: the cluster's login only if it is the image's own registry, else
// what a helper of this machine has for the host.
func (p *Puller) credentials(ctx context.Context, registry, asks string, login container.Login) (user, secret string, err error) {
	own := sameHost(registry, asks)
	switch {
	case own && login.Token != "":
		return "", login.Token, nil
	case own && login.Password != "":
		return login.Username, login.Password, nil
	case p.cfg.Helpers[asks] != "":
		return ask(ctx, p.cfg.Helpers[asks], asks)
	case own && p.cfg.Helpers[registry] != "":
		return ask(ctx, p.cfg.Helpers[registry], registry)
	}
	return "", "", nil
}

// sameHost says whether a host serves a registry: Docker's is served by another than its name says.
func sameHost(registry, host string) bool {
	return host == registry || (registry == "docker.io" && host == "registry-1.docker.io")
}

func hostOf(ref string) string {
	host, _, _ := strings.Cut(ref, "/")
	return host
}
