package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/containerd/containerd/v2/core/mount"
	continuity "github.com/containerd/continuity/fs"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/kernel"
	"github.com/shoalproject/shoal/services/agent/internal/volume"
)

// sources finds or makes what the container's mounts show: a path on the machine for each, empty for memory. The places
// that the image declares as volumes count as mounts of volumes that end with the container, as with Docker.
func (e *Executor) sources(c container.Spec, img *image, rootfs []mount.Mount, users *os.File) (container.Spec, []string, error) {
	c.Container = withImageVolumes(c.Container, img)
	sources := make([]string, 0, len(c.Container.GetMounts()))
	for i, m := range c.Container.GetMounts() {
		source, err := e.source(c, i, m, rootfs, users)
		if err != nil {
			return c, nil, fmt.Errorf("mount %s: %w", m.GetTarget(), err)
		}
		sources = append(sources, source)
	}
	return c, sources, nil
}

func (e *Executor) source(c container.Spec, n int, m *typesv1.Mount, rootfs []mount.Mount, users *os.File) (string, error) {
	switch m.GetType() {
	case typesv1.MountType_MOUNT_TYPE_TMPFS:
		return "", nil
	case typesv1.MountType_MOUNT_TYPE_BIND:
		source, err := e.bindSource(m)
		if err != nil {
			return "", err
		}
		return e.seen(c, n, m, source, users)
	case typesv1.MountType_MOUNT_TYPE_UNSPECIFIED, typesv1.MountType_MOUNT_TYPE_VOLUME:
	}
	var fill volume.Fill
	if !m.GetVolume().GetNoCopy() {
		fill = func(dir string) error { return copyUp(rootfs, m.GetTarget(), dir) }
	}
	var data string
	var err error
	if name := m.GetSource(); name != "" {
		if !state.ValidVolume(name) { // it becomes a path, and placeholders were filled in
			return "", errs.New(errs.Invalid, "%.150q is no name of a volume", name)
		}
		of := c.Volumes[name]
		data, err = e.volumes.Named(name, volume.About{
			Labels: m.GetVolume().GetLabels(), Service: of.Service, Slot: of.Slot, Incarnation: of.Incarnation,
		}, fill)
	} else {
		data, err = e.volumes.Own(c.ID, n, m.GetVolume().GetLabels(), fill)
	}
	if err != nil {
		return "", err
	}
	if sub := m.GetVolume().GetSubpath(); sub != "" {
		return e.volumes.Part(c.ID, n, data, sub, users)
	}
	return e.seen(c, n, m, data, users)
}

// bindSource must be there, unless the task asks that it be made: a folder that appears by itself hides a typing mistake.
// An agent in a container of its own does not see the machine's files: what is missing there the runtime tells at the start.
func (e *Executor) bindSource(m *typesv1.Mount) (string, error) {
	_, err := os.Stat(m.GetSource())
	switch {
	case err != nil && kernel.Apart(e.cfg.Socket):
		if m.GetBind().GetCreateMountpoint() {
			return "", errs.New(errs.Invalid, "bind source %s can't be made: this node's agent runs in a container and does not see the node's files", m.GetSource())
		}
	case errors.Is(err, fs.ErrNotExist) && m.GetBind().GetCreateMountpoint():
		err = os.MkdirAll(m.GetSource(), 0o755) // as Docker makes it: containers of any user look into it
		if err != nil {
			return "", errs.New(errs.Invalid, "make bind source %s: %s", m.GetSource(), err)
		}
	case errors.Is(err, fs.ErrNotExist):
		return "", errs.New(errs.Invalid, "bind source %s does not exist on this node; make it, or have it made with bind-create-src", m.GetSource())
	case err != nil:
		return "", errs.New(errs.Invalid, "bind source %s: %s", m.GetSource(), err)
	}
	return m.GetSource(), nil
}

// withImageVolumes adds the image's volumes where the service mounts nothing itself.
func withImageVolumes(c *typesv1.ContainerSpec, img *image) *typesv1.ContainerSpec {
	if len(img.config.Volumes) == 0 {
		return c
	}
	c = proto.CloneOf(c)
	for _, target := range slices.Sorted(maps.Keys(img.config.Volumes)) {
		taken := slices.ContainsFunc(c.GetMounts(), func(m *typesv1.Mount) bool { return path.Clean(m.GetTarget()) == path.Clean(target) })
		if path.IsAbs(target) && path.Clean(target) != "/" && !taken {
			c.Mounts = append(c.Mounts, &typesv1.Mount{Type: typesv1.MountType_MOUNT_TYPE_VOLUME, Target: target})
		}
	}
	return c
}

// copyUp fills a new volume with what the image has at the place where it is mounted.
func copyUp(rootfs []mount.Mount, target, dir string) error {
	return mount.WithReadonlyTempMount(context.Background(), rootfs, func(root string) error {
		from, err := continuity.RootPath(root, target) // a link in the image leads about in the image
		if err != nil {
			return fmt.Errorf("look for %s in the image: %w", target, err)
		}
		info, err := os.Stat(from)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
			return nil
		}
		if err == nil {
			err = continuity.CopyDir(dir, from)
		}
		if err != nil {
			return fmt.Errorf("fill the volume from the image: %w", err)
		}
		return nil
	})
}
