package executor

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	containerd "github.com/containerd/containerd/v2/client"
	cimages "github.com/containerd/containerd/v2/core/images"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/disk"
	"github.com/shoalproject/shoal/services/agent/internal/prune"
	"github.com/shoalproject/shoal/services/agent/internal/pull"
	"github.com/shoalproject/shoal/services/agent/internal/system"
)

// Disk is the file system of the snapshotter, where images are unpacked. NotFound: containerd does not say where that is, or
// its files are not where this process could see them.
func (e *Executor) Disk(ctx context.Context) (disk.Use, error) {
	ctx, cancel := e.call(ctx)
	defer cancel()
	resp, err := e.client.IntrospectionService().Plugins(ctx, `type~="io.containerd.snapshotter",id==`+e.cfg.Snapshotter)
	if err != nil {
		return disk.Use{}, e.failure("ask containerd where its snapshots are", err)
	}
	i := slices.IndexFunc(resp.GetPlugins(), func(p *introspection.Plugin) bool { return p.GetExports()["root"] != "" })
	if i < 0 {
		return disk.Use{}, errs.New(errs.NotFound, "containerd does not say where its snapshots are")
	}
	use, err := system.Room(resp.GetPlugins()[i].GetExports()["root"])
	if errors.Is(err, fs.ErrNotExist) {
		return disk.Use{}, errs.New(errs.NotFound, "containerd's snapshots are not to be seen from here")
	}
	return use, err
}

// labelPinned is the label by which Kubernetes and people keep an image (containerd's docs/cri/config.md).
const labelPinned = "io.cri-containerd.pinned"

// Images are those in our namespace that were pulled here and that nobody has pinned. Used are those of a container, whosever it is,
// and those that tasks name.
func (e *Executor) Images(ctx context.Context, named []string) ([]prune.Image, error) {
	ctx, cancel := e.call(ctx)
	defer cancel()
	used := map[string]bool{}
	for _, name := range named {
		if ref, err := normalize(name); err == nil {
			used[ref] = true
		}
	}
	made, err := e.client.ContainerService().List(ctx)
	if err != nil {
		return nil, e.failure("list containers", err)
	}
	for _, c := range made {
		used[c.Image] = true
	}
	all, err := e.client.ListImages(ctx)
	if err != nil {
		return nil, e.failure("list images", err)
	}
	// Two names may be of one content: what is used by one is used.
	content := map[string]bool{}
	for _, i := range all {
		if used[i.Name()] {
			content[i.Target().Digest.String()] = true
		}
	}
	var out []prune.Image
	for _, i := range all {
		if labels := i.Labels(); labels[pull.LabelPulled] == "" || labels[labelPinned] != "" {
			continue
		}
		bytes, err := i.Usage(ctx, containerd.WithSnapshotUsage())
		if err != nil {
			bytes, err = i.Size(ctx)
		}
		if err != nil { // in the making, or going
			continue
		}
		out = append(out, prune.Image{
			Name: i.Name(), Bytes: bytes, Used: used[i.Name()] || content[i.Target().Digest.String()], Since: e.images.since(i.Name(), i.Metadata().UpdatedAt),
		})
	}
	return out, nil
}

// RemoveImage removes one. A container that is being made of it finds out, and pulls it again.
func (e *Executor) RemoveImage(ctx context.Context, name string) error {
	ctx, cancel := e.call(ctx)
	defer cancel()
	e.images.drop(name)
	if err := e.failure("remove image "+name, e.client.ImageService().Delete(ctx, name, cimages.SynchronousDelete())); err != nil && !errs.Is(err, errs.NotFound) {
		return err
	}
	return nil
}

// since is when an image was used last, as far as this life of the agent knows, or made.
func (s *images) since(ref string, made time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.last[ref]; at.After(made) {
		return at
	}
	return made
}

func (s *images) drop(ref string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, ref)
	delete(s.last, ref)
}
