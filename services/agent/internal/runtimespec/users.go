package runtimespec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// users puts the container into the user namespace that was made for it. A runtime before runc 1.2 wants to hear the ids too; a later
// one compares them.
func users(s *specs.Spec, c container.Spec) error {
	if !c.IDs.Mapped() {
		return nil
	}
	p := c.Container.GetPrivileges()
	if p.GetPrivileged() || p.GetHostPid() || p.GetHostIpc() || p.GetHostNetwork() || c.Sandbox.UserNS == "" {
		return errs.New(errs.Invalid, "user_namespace: a container that is privileged or shares namespaces of the node has the node's user ids")
	}
	for _, id := range append([]uint32{s.Process.User.UID, s.Process.User.GID}, s.Process.User.AdditionalGids...) {
		if _, err := c.IDs.Outside(id); err != nil {
			return errs.New(errs.Invalid, "user: %w", err)
		}
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: c.Sandbox.UserNS})
	all := []specs.LinuxIDMapping{{HostID: c.IDs.First, Size: container.IDCount}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = all, all
	return nil
}
