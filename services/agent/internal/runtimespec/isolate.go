package runtimespec

import (
	"context"
	"slices"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// allCapabilities is the word for all that there are.
const allCapabilities = "ALL"

// isolate keeps the container apart, as far as it does not ask for less. The capabilities come first and the filter of
// system calls last: it lets through what they stand for.
func isolate(ctx context.Context, s *specs.Spec, c container.Spec, m Machine) error {
	p := c.Container.GetPrivileges()
	if p.GetPrivileged() {
		if err := oci.Compose(oci.WithPrivileged, oci.WithAllDevicesAllowed, oci.WithHostDevices)(ctx, nil, nil, s); err != nil {
			return errs.New(errs.Invalid, "privileged: %s", err)
		}
	}
	caps := capabilities(c.Container, m)
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
	// As Docker: programs may gain rights, since sudo, ping and su in images rely on it, unless the service says no.
	s.Process.NoNewPrivileges = p.GetNoNewPrivileges()
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, p.GetMaskedPaths()...)
	s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, p.GetReadOnlyPaths()...)
	if p.GetHostPid() {
		without(s, specs.PIDNamespace)
	}
	if p.GetHostIpc() {
		without(s, specs.IPCNamespace)
	}
	if p.GetHostNetwork() {
		without(s, specs.NetworkNamespace)
	}
	if err := label(s, p, m); err != nil {
		return err
	}
	return filter(s, p, m)
}

// capabilities are Docker's default ones, all or none, with those added and without those dropped.
func capabilities(c *typesv1.ContainerSpec, m Machine) []string {
	add, drop := c.GetCapabilityAdd(), c.GetCapabilityDrop()
	var caps []string
	switch {
	case c.GetPrivileges().GetPrivileged(), slices.Contains(add, allCapabilities):
		caps = slices.Clone(m.Capabilities)
	case !slices.Contains(drop, allCapabilities):
		caps = defaultCapabilities()
	}
	for _, name := range add {
		if name != allCapabilities && !slices.Contains(caps, name) {
			caps = append(caps, name)
		}
	}
	return slices.DeleteFunc(caps, func(name string) bool { return slices.Contains(drop, name) })
}

// defaultCapabilities are Docker's.
func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

func without(s *specs.Spec, kind specs.LinuxNamespaceType) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
}

// label sets what AppArmor and SELinux know the process by.
func label(s *specs.Spec, p *typesv1.Privileges, m Machine) error {
	switch a := p.GetApparmor(); {
	case a.GetMode() == typesv1.ProfileMode_PROFILE_MODE_CUSTOM && m.AppArmor == "":
		return errs.New(errs.Invalid, "apparmor: profile %q is asked for, and this node has no AppArmor", a.GetProfile())
	case a.GetMode() == typesv1.ProfileMode_PROFILE_MODE_CUSTOM:
		s.Process.ApparmorProfile = a.GetProfile()
	case a.GetMode() == typesv1.ProfileMode_PROFILE_MODE_UNCONFINED && m.AppArmor != "":
		s.Process.ApparmorProfile = "unconfined"
	case !p.GetPrivileged():
		s.Process.ApparmorProfile = m.AppArmor
	}
	l := p.GetSelinux()
	if l == nil || l.GetDisable() {
		return nil
	}
	if !m.SELinux {
		return errs.New(errs.Invalid, "selinux: a label is asked for, and this node has no SELinux")
	}
	s.Process.SelinuxLabel = or(l.GetUser(), "system_u") + ":" + or(l.GetRole(), "system_r") + ":" +
		or(l.GetType(), "container_t") + ":" + or(l.GetLevel(), "s0")
	s.Linux.MountLabel = or(l.GetUser(), "system_u") + ":object_r:container_file_t:" + or(l.GetLevel(), "s0")
	return nil
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// filter chooses the filter of system calls.
func filter(s *specs.Spec, p *typesv1.Privileges, m Machine) error {
	switch f := p.GetSeccomp(); f.GetMode() {
	case typesv1.ProfileMode_PROFILE_MODE_UNCONFINED:
		s.Linux.Seccomp = nil
	case typesv1.ProfileMode_PROFILE_MODE_CUSTOM:
		if !m.Seccomp {
			return errs.New(errs.Invalid, "seccomp: a profile is asked for, and this node's kernel has no seccomp")
		}
		profile, err := parseProfile(f.GetProfile(), s.Process.Capabilities.Bounding)
		if err != nil {
			return err
		}
		s.Linux.Seccomp = profile
	case typesv1.ProfileMode_PROFILE_MODE_UNSPECIFIED, typesv1.ProfileMode_PROFILE_MODE_DEFAULT:
		if m.Seccomp && !p.GetPrivileged() {
			s.Linux.Seccomp = seccomp.DefaultProfile(s)
		}
	}
	return nil
}
