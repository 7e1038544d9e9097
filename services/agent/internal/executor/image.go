package executor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/pull"
	"github.com/shoalproject/shoal/services/agent/internal/runtimespec"
)

// image is what a container needs to know of its image. It is immutable, but for users.
type image struct {
	ref    string
	chain  string // the snapshot that holds its file system
	config ocispec.ImageConfig
	health *typesv1.Probe // that it brings; nil: none

	mu    sync.Mutex // guards users
	users map[string]runtimespec.User
}

// images finds images: in memory, in containerd, in the registry, in this order. So fifty containers of one image cost
// one look and at most one pull.
type images struct {
	e      *Executor
	puller *pull.Puller

	mu     sync.Mutex // guards all below
	known  map[string]*image
	flight map[string]*flight
	last   map[string]time.Time // when one was asked for
}

// flight is a search that others wait for.
type flight struct {
	done chan struct{} // closed when the rest is set
	img  *image
	err  error

	mu     sync.Mutex // guards all below
	hears  []func(string)
	latest string
}

// listen tells somebody more how far it is.
func (f *flight) listen(hear func(string)) {
	if hear == nil {
		return
	}
	f.mu.Lock()
	f.hears = append(f.hears, hear)
	latest := f.latest
	f.mu.Unlock()
	if latest != "" {
		hear(latest)
	}
}

// tell says how far it is to all who wait. A pull that has ended for one of them is no news for him.
func (f *flight) tell(how string) {
	f.mu.Lock()
	f.latest = how
	hears := slices.Clone(f.hears)
	f.mu.Unlock()
	for _, hear := range hears {
		hear(how)
	}
}

func newImages(e *Executor) *images {
	return &images{e: e, puller: pull.New(e.cfg.Pull, e.log, e.client, e.cfg.Snapshotter), known: map[string]*image{}, flight: map[string]*flight{}, last: map[string]time.Time{}}
}

// normalize makes the full reference of what a person typed: docker.io, library/ and :latest are added. A tag beside a digest
// says nothing, and goes: the same content is pulled once and kept once.
func normalize(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", errs.New(errs.Invalid, "image %q: %s", name, err)
	}
	if digested, ok := named.(reference.Digested); ok {
		pinned, err := reference.WithDigest(reference.TrimNamed(named), digested.Digest())
		if err != nil {
			return "", errs.New(errs.Invalid, "image %q: %s", name, err)
		}
		return pinned.String(), nil
	}
	return reference.TagNameOnly(named).String(), nil
}

// get returns the image, unpacked. The error has the registry's words.
func (s *images) get(ctx context.Context, name string, want container.Pull) (*image, error) {
	ref, err := normalize(name)
	if err != nil {
		return nil, err
	}
	for {
		img, f, mine := s.join(ref)
		if img != nil {
			return img, nil
		}
		f.listen(want.Tell)
		if mine {
			f.img, f.err = s.find(ctx, ref, want, f)
			s.land(ref, f)
			return f.img, f.err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		// The one that we waited for may have been stopped; that is no reason to stop with it.
		if f.err == nil || !errs.Is(f.err, errs.Unavailable) || ctx.Err() != nil {
			return f.img, f.err
		}
	}
}

func (s *images) join(ref string) (img *image, f *flight, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[ref] = time.Now()
	if img := s.known[ref]; img != nil {
		return img, nil, false
	}
	if f := s.flight[ref]; f != nil {
		return nil, f, false
	}
	f = &flight{done: make(chan struct{})}
	s.flight[ref] = f
	return nil, f, true
}

func (s *images) land(ref string, f *flight) {
	s.mu.Lock()
	delete(s.flight, ref)
	if f.err == nil {
		s.known[ref], s.last[ref] = f.img, time.Now()
	} else {
		delete(s.last, ref)
	}
	s.mu.Unlock()
	close(f.done)
}

// forget drops what is in memory: somebody removed the image from containerd.
func (s *images) forget(img *image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.known, func(_ string, known *image) bool { return known == img })
}

// find takes the image that containerd has under this reference, whole or not at all, and else pulls it. A tag is
// resolved once: what was pulled under it stays, as with Docker's services, whose digest is settled when they are made.
func (s *images) find(ctx context.Context, ref string, want container.Pull, f *flight) (*image, error) {
	ctx = namespaces.WithNamespace(ctx, s.e.cfg.Namespace)
	if local, err := s.e.client.GetImage(ctx, ref); err == nil {
		if unpacked, err := local.IsUnpacked(ctx, s.e.cfg.Snapshotter); err == nil && unpacked {
			if img, err := describe(ctx, ref, local); err == nil {
				return img, nil
			}
		}
	} else if !errdefs.IsNotFound(err) {
		return nil, s.e.failure(fmt.Sprintf("look for image %q", ref), err)
	}
	pulled, err := s.puller.Pull(ctx, ref, want.Login, f.tell)
	switch {
	case errs.Is(err, errs.Precondition), errs.Is(err, errs.Unavailable): // the registry's
		return nil, err
	case err != nil:
		return nil, s.e.failure(fmt.Sprintf("pull image %q", ref), err)
	}
	img, err := describe(ctx, ref, pulled)
	if err != nil {
		return nil, s.e.failure(fmt.Sprintf("read image %q", ref), err)
	}
	return img, nil
}

func describe(ctx context.Context, ref string, i containerd.Image) (*image, error) {
	layers, err := i.RootFS(ctx)
	if err != nil {
		return nil, err
	}
	spec, err := i.Spec(ctx)
	if err != nil {
		return nil, err
	}
	health, err := imageProbe(ctx, i)
	if err != nil {
		return nil, err
	}
	return &image{ref: ref, chain: identity.ChainID(layers).String(), config: spec.Config, health: health, users: map[string]runtimespec.User{}}, nil
}
