package executor

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

const (
	// specVersion is the lowest that serves: a runtime refuses a spec that is newer than itself.
	specVersion = "1.0.2"
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	cpuPeriod   = 100 * time.Millisecond
	// Open files: the soft limit that select(2) programs rely on, and room for a server that asks for it.
	softFiles, hardFiles = 1024, 524288
)

// userIDs is what a user's name means in an image.
type userIDs struct {
	uid, gid uint32
	groups   []uint32
}

// runtimeSpec writes the OCI spec of a container. Where neither the service nor the image says anything, it is what
// Docker's users are used to: its capabilities, masked paths, system call filter, mounts and network sysctls.
func (e *Executor) runtimeSpec(ctx context.Context, c container.Spec, img *image, rec *containers.Container) (*oci.Spec, error) {
	args := command(c, img)
	if len(args) == 0 {
		return nil, errs.New(errs.Invalid, "image %q names no command; give the service one", img.ref)
	}
	s, err := oci.GenerateSpec(ctx, e.client, rec,
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: c.Sandbox.NetNS}),
		oci.WithHostname(c.Hostname),
		oci.WithCgroup(container.Group(c.ID)),
		oci.WithoutRunMount, // Docker has none, and images keep files there
		oci.WithDefaultUnixDevices,
		oci.WithNewPrivileges, // as Docker: sudo, ping and su in images rely on it
	)
	if err != nil {
		return nil, err
	}
	s.Version = specVersion
	s.Process.Args = args
	s.Process.Env = environment(c, img)
	s.Process.Cwd = workDir(c, img)
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: min(softFiles, e.files), Hard: e.files}}
	s.Root.Readonly = c.Container.GetReadOnly()
	s.Mounts = append(s.Mounts, mounts(c)...)
	s.Linux.Sysctl = map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net.ipv4.ping_group_range":           "0 2147483647",
	}
	limit(s.Linux.Resources, c)
	if err := e.setUser(ctx, s, c, img, rec); err != nil {
		return nil, err
	}
	if e.secure {
		s.Linux.Seccomp = seccomp.DefaultProfile(s) // after the capabilities, on which it depends
	}
	return s, nil
}

// command follows Docker: a command of the service replaces the image's entry point and its arguments, arguments alone
// replace the image's arguments.
func command(c container.Spec, img *image) []string {
	switch {
	case len(c.Container.GetCommand()) > 0:
		return slices.Concat(c.Container.GetCommand(), c.Container.GetArgs())
	case len(c.Container.GetArgs()) > 0:
		return slices.Concat(img.config.Entrypoint, c.Container.GetArgs())
	}
	return slices.Concat(img.config.Entrypoint, img.config.Cmd)
}

// environment puts the later over the earlier: the defaults, the image's, the service's. A name without = is taken out.
func environment(c container.Spec, img *image) []string {
	env := []string{defaultPath, "HOSTNAME=" + c.Hostname}
	for _, entry := range slices.Concat(img.config.Env, c.Container.GetEnv()) {
		name, _, set := strings.Cut(entry, "=")
		at := slices.IndexFunc(env, func(have string) bool { return strings.HasPrefix(have, name+"=") })
		switch {
		case !set && at >= 0:
			env = slices.Delete(env, at, at+1)
		case set && at >= 0:
			env[at] = entry
		case set:
			env = append(env, entry)
		}
	}
	return env
}

func workDir(c container.Spec, img *image) string {
	for _, dir := range []string{c.Container.GetDir(), img.config.WorkingDir} {
		if dir != "" {
			return path.Join("/", dir)
		}
	}
	return "/"
}

func mounts(c container.Spec) []specs.Mount {
	mode := "rw"
	if c.Container.GetReadOnly() {
		mode = "ro"
	}
	list := []specs.Mount{{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
		Options: []string{"ro", "nosuid", "noexec", "nodev"},
	}}
	for _, bind := range []struct{ to, from string }{
		{"/etc/hosts", c.Sandbox.Hosts}, {"/etc/resolv.conf", c.Sandbox.Resolv}, {"/etc/hostname", c.Sandbox.Hostname},
	} {
		if bind.from != "" {
			list = append(list, specs.Mount{
				Destination: bind.to, Type: "bind", Source: bind.from, Options: []string{"rbind", "rprivate", mode},
			})
		}
	}
	return list
}

func limit(r *specs.LinuxResources, c container.Spec) {
	if cpus := c.Limits.GetNanoCpus(); cpus > 0 {
		period := uint64(cpuPeriod.Microseconds())
		quota := max(1000, cpus*int64(period)/1e9) // the kernel takes no less than 1 ms
		r.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
	}
	if bytes := c.Limits.GetMemoryBytes(); bytes > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &bytes}
	}
	if n := c.Limits.GetPids(); n > 0 {
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
}

// setUser resolves the user in the image's own files, once for all containers of the image: it never changes, and a look
// costs a walk through the layers.
func (e *Executor) setUser(ctx context.Context, s *oci.Spec, c container.Spec, img *image, rec *containers.Container) error {
	name := c.Container.GetUser()
	if name == "" {
		name = img.config.User
	}
	if name == "" {
		name = "0"
	}
	ids, ok := img.user(name)
	if !ok {
		user, _, _ := strings.Cut(name, ":")
		resolve := oci.Compose(oci.WithUser(name), keepGroup(oci.WithAdditionalGIDs(user)))
		if err := resolve(ctx, e.client, rec, s); err != nil {
			return errs.New(errs.Invalid, "user %q in image %q: %s", name, img.ref, err)
		}
		ids = userIDs{uid: s.Process.User.UID, gid: s.Process.User.GID, groups: s.Process.User.AdditionalGids}
		img.learn(name, ids)
	}
	s.Process.User = specs.User{UID: ids.uid, GID: ids.gid, AdditionalGids: ids.groups}
	return nil
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

func (i *image) user(name string) (userIDs, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	ids, ok := i.users[name]
	return ids, ok
}

func (i *image) learn(name string, ids userIDs) {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := maps.Clone(i.users)
	next[name] = ids
	i.users = next
}
