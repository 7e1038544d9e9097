package executor

import (
	"context"
	"maps"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/runtimespec"
)

// user resolves the user and its further groups in the image's own files, once for all containers of the image: they never
// change, and a look costs a walk through the layers.
func (e *Executor) user(ctx context.Context, c container.Spec, img *image, rec *containers.Container) (runtimespec.User, error) {
	name := c.Container.GetUser()
	if name == "" {
		name = img.config.User
	}
	if name == "" {
		name = "0"
	}
	key := strings.Join(append([]string{name}, c.Container.GetGroups()...), ",")
	if known, ok := img.user(key); ok {
		return known, nil
	}
	s := &oci.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}
	user, _, _ := strings.Cut(name, ":")
	resolve := oci.Compose(oci.WithUser(name), keepGroup(oci.WithAdditionalGIDs(user)))
	if err := resolve(ctx, e.client, rec, s); err != nil {
		return runtimespec.User{}, errs.New(errs.Invalid, "user %q in image %q: %s", name, img.ref, err)
	}
	if more := c.Container.GetGroups(); len(more) > 0 {
		if err := keepGroup(oci.WithAppendAdditionalGroups(more...))(ctx, e.client, rec, s); err != nil {
			return runtimespec.User{}, errs.New(errs.Invalid, "groups %s in image %q: %s", strings.Join(more, ", "), img.ref, err)
		}
	}
	found := runtimespec.User{UID: s.Process.User.UID, GID: s.Process.User.GID, Groups: s.Process.User.AdditionalGids}
	img.learn(key, found)
	return found, nil
}

// keepGroup holds uid and gid over an option that is only about the other groups.
func keepGroup(opt oci.SpecOpts) oci.SpecOpts {
	return func(ctx context.Context, client oci.Client, rec *containers.Container, s *oci.Spec) error {
		uid, gid := s.Process.User.UID, s.Process.User.GID
		err := opt(ctx, client, rec, s)
		s.Process.User.UID, s.Process.User.GID = uid, gid
		return err
	}
}

func (i *image) user(name string) (runtimespec.User, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	found, ok := i.users[name]
	return found, ok
}

func (i *image) learn(name string, found runtimespec.User) {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := maps.Clone(i.users)
	next[name] = found
	i.users = next
}
