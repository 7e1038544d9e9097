package executor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/kernel"
	"github.com/shoalproject/shoal/services/agent/internal/userns"
)

// UserNamespaces says why containers with user namespaces of their own can't run here; nil: they can.
func (e *Executor) UserNamespaces() error {
	if kernel.Apart(e.cfg.Socket) {
		return errs.New(errs.Precondition, "its agent runs in a container and does not see the files of images")
	}
	if err := os.MkdirAll(e.cfg.Volumes, 0o711); err != nil {
		return fmt.Errorf("make the folder of volumes: %w", err)
	}
	return userns.Able(e.cfg.Volumes)
}

// openUsers opens the user namespace that was made for a container; nil: it has none of its own.
func openUsers(c container.Spec) (*os.File, error) {
	if !c.IDs.Mapped() {
		return nil, nil //nolint:nilnil // as said
	}
	f, err := os.Open(c.Sandbox.UserNS)
	if err != nil {
		return nil, fmt.Errorf("open the container's user namespace: %w", err)
	}
	return f, nil
}

// seen is what a mount of a container shows: the source itself, or a mount of it with the owners of the container's user namespace.
func (e *Executor) seen(c container.Spec, n int, m *typesv1.Mount, source string, users *os.File) (string, error) {
	if users == nil {
		return source, nil
	}
	b := m.GetBind()
	slave := b.GetPropagation() == typesv1.MountPropagation_MOUNT_PROPAGATION_SLAVE || b.GetPropagation() == typesv1.MountPropagation_MOUNT_PROPAGATION_RSLAVE
	return e.volumes.Mapped(c.ID, strconv.Itoa(n), source, users, userns.Tree{Recursive: !b.GetNonRecursive(), Slave: slave})
}

// keepFlags has read-only mounts say what their source's mount says. In a user namespace the kernel lets nobody leave that out, and runc
// before 1.1.9 does not add it.
func keepFlags(spec *specs.Spec) {
	for i, m := range spec.Mounts {
		var at unix.Statfs_t
		if m.Type != "bind" || !slices.Contains(m.Options, "ro") || unix.Statfs(m.Source, &at) != nil {
			continue
		}
		for _, flag := range []struct {
			bit  int64
			name string
		}{{unix.ST_NOSUID, "nosuid"}, {unix.ST_NODEV, "nodev"}, {unix.ST_NOEXEC, "noexec"}} {
			if at.Flags&flag.bit != 0 && !slices.Contains(m.Options, flag.name) {
				spec.Mounts[i].Options = append(spec.Mounts[i].Options, flag.name)
			}
		}
	}
}

// settleOwners gives a container's file system to its user namespace. The layers of its image are mounted with other owners, which
// costs nothing; where the kernel can't lay them over each other, or there are no layers, each file changes hands.
func (e *Executor) settleOwners(ctx context.Context, c container.Spec, rootfs []mount.Mount, users *os.File) ([]mount.Mount, error) {
	if users == nil {
		return rootfs, nil
	}
	lower, upper := layers(rootfs)
	if !e.layered || len(lower) == 0 || upper == "" {
		return rootfs, changeHands(ctx, rootfs, c.IDs)
	}
	for i, dir := range lower {
		if _, err := e.volumes.Mapped(c.ID, layerPin(i), dir, users, userns.Tree{}); err != nil {
			return nil, fmt.Errorf("a layer of the image: %w", err)
		}
	}
	if err := userns.ChangeOwner(upper, c.IDs); err != nil { // what is written goes there, as it is
		return nil, err
	}
	return e.throughPins(c.ID, rootfs), nil
}

// layerPin is where a layer is mounted with other owners, beside the container's volumes.
func layerPin(i int) string { return "layer" + strconv.Itoa(i) }

const lowerOption, upperOption = "lowerdir=", "upperdir="

// layers are those of an overlay; none of anything else.
func layers(rootfs []mount.Mount) (lower []string, upper string) {
	if len(rootfs) != 1 || rootfs[0].Type != "overlay" {
		return nil, ""
	}
	for _, o := range rootfs[0].Options {
		if dirs, ok := strings.CutPrefix(o, lowerOption); ok {
			lower = strings.Split(dirs, ":")
		}
		if dir, ok := strings.CutPrefix(o, upperOption); ok {
			upper = dir
		}
	}
	return lower, upper
}

// throughPins is a file system whose layers are those that are mounted with other owners, if they are.
func (e *Executor) throughPins(id string, rootfs []mount.Mount) []mount.Mount {
	lower, _ := layers(rootfs)
	if len(lower) == 0 || !exists(filepath.Join(e.cfg.Pins, id, layerPin(0))) {
		return rootfs
	}
	for i := range lower {
		lower[i] = filepath.Join(e.cfg.Pins, id, layerPin(i))
	}
	m := rootfs[0]
	m.Options = slices.Clone(m.Options)
	for i, o := range m.Options {
		if strings.HasPrefix(o, lowerOption) {
			m.Options[i] = lowerOption + strings.Join(lower, ":")
		}
	}
	return []mount.Mount{m}
}

// changeHands gives each file of a file system to its user namespace. It copies what it changes, so it costs the size of the image.
func changeHands(ctx context.Context, rootfs []mount.Mount, ids container.IDs) error {
	return mount.WithTempMount(ctx, rootfs, func(root string) error { return userns.ChangeOwners(ctx, root, ids) })
}
