// Package runtimespec writes the OCI runtime spec of a container: what the task asks for, laid over what Docker's users are
// used to.
//
// It owns the translation of every container option, and the refusal of what this machine cannot do: an option arrives in
// the container unchanged, or the task is rejected with the reason. It must never make or run anything; it looks at the
// machine only where an option names something of it (a device). It has no state.
package runtimespec

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

const (
	// version is the lowest that serves: a runtime refuses a spec that is newer than itself.
	version     = "1.0.2"
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	cpuPeriod   = 100 * time.Millisecond
	// softFiles is the limit of open files that programs with select(2) rely on.
	softFiles = 1024
)

// Machine is what this machine can do.
type Machine struct {
	Unified   bool   // cgroup v2
	Seccomp   bool   // the kernel filters system calls; without it a runtime refuses a filter
	AppArmor  string // name of the default profile, which is loaded; empty: no AppArmor
	SELinux   bool
	Swap      bool   // the kernel counts swap
	Recursive bool   // read-only mounts reach what is mounted below (Linux 5.12)
	Files     uint64 // the most open files that a container may ask for
	// Capabilities are all that a container can have.
	Capabilities []string
	CDI          []string // folders that describe devices by Container Device Interface names
	Init         string   // path of the small init; empty: there is none
}

// User is what a user's name means in an image.
type User struct {
	UID, GID uint32
	Groups   []uint32
}

// Input is all that a spec is made of.
type Input struct {
	Container container.Spec
	Image     string // its reference, for words
	Config    ocispec.ImageConfig
	User      User
	// Sources are the paths on the machine that the container's mounts show, one for each; empty for memory.
	Sources []string
}

// Build writes the spec. Errors are Invalid: what a person must mend.
func Build(ctx context.Context, in Input, m Machine) (*specs.Spec, error) {
	c := in.Container
	args := command(in)
	if len(args) == 0 {
		return nil, errs.New(errs.Invalid, "image %q names no command; give the service one", in.Image)
	}
	s, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: c.ID},
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: c.Sandbox.NetNS}),
		oci.WithHostname(c.Hostname),
		oci.WithCgroup(container.Group(c.ID)),
		oci.WithoutRunMount, // Docker has none, and images keep files there
		oci.WithDefaultUnixDevices,
	)
	if err != nil {
		return nil, err
	}
	s.Version = version
	s.Process.Args = args
	s.Process.Env = environment(in)
	s.Process.Cwd = workDir(in)
	s.Process.User = specs.User{UID: in.User.UID, GID: in.User.GID, AdditionalGids: in.User.Groups}
	s.Process.Terminal = c.Container.GetTty()
	s.Root.Readonly = c.Container.GetReadOnly()
	if m.Unified { // as Docker: with cgroup v2 a container sees its own group alone
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	if err := users(s, c); err != nil {
		return nil, err
	}
	s.Linux.Sysctl = sysctls(c)
	if err := limit(s, c, m); err != nil {
		return nil, err
	}
	if err := mounts(s, in, m); err != nil {
		return nil, err
	}
	if err := devices(ctx, s, c, m); err != nil {
		return nil, err
	}
	if err := isolate(ctx, s, c, m); err != nil { // last: the filter of system calls depends on the capabilities
		return nil, err
	}
	return s, nil
}

// command follows Docker: a command of the service replaces the image's entry point and its arguments, arguments alone
// replace the image's arguments.
func command(in Input) []string {
	c := in.Container.Container
	switch {
	case len(c.GetCommand()) > 0:
		return slices.Concat(c.GetCommand(), c.GetArgs())
	case len(c.GetArgs()) > 0:
		return slices.Concat(in.Config.Entrypoint, c.GetArgs())
	}
	return slices.Concat(in.Config.Entrypoint, in.Config.Cmd)
}

// environment puts the later over the earlier: the defaults, the image's, the service's. A name without = is taken out.
func environment(in Input) []string {
	env := []string{defaultPath, "HOSTNAME=" + in.Container.Hostname}
	if in.Container.Container.GetTty() {
		env = append(env, "TERM=xterm")
	}
	for _, entry := range slices.Concat(in.Config.Env, in.Container.Container.GetEnv()) {
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

func workDir(in Input) string {
	for _, dir := range []string{in.Container.Container.GetDir(), in.Config.WorkingDir} {
		if dir != "" {
			return absolute(dir)
		}
	}
	return "/"
}
