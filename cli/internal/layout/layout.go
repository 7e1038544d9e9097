// Package layout is where things are on a machine: a process's configuration, folder, unit, user and port, and which
// processes a machine may have.
//
// It knows names alone and touches nothing. Its values do not change.
package layout

import (
	"path"
	"slices"
	"strings"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
)

// Folders of a machine, and containerd's door.
const (
	ConfigDir  = "/etc/shoal"
	DataDir    = enroll.DefaultRoot
	RunDir     = "/run/shoal"
	Containerd = "/run/containerd/containerd.sock"
)

// Layout is a machine's. The zero value is that of a real one.
type Layout struct {
	// Root is put before every path; empty but in tests.
	Root string
}

// Path is a path on this machine.
func (l Layout) Path(name string) string { return path.Join(l.Root, name) }

// Config is a process's configuration file.
func (l Layout) Config(role authzv1.Role) string {
	return l.Path(path.Join(ConfigDir, identity.RoleName(role)+".yaml"))
}

// Folder is a process's data folder.
func (l Layout) Folder(role authzv1.Role) string {
	return l.Path(path.Join(DataDir, identity.RoleName(role)))
}

// Identity is the folder of a process's certificate.
func (l Layout) Identity(role authzv1.Role) string { return path.Join(l.Folder(role), "identity") }

// MachineID is the file with this machine's id.
func (l Layout) MachineID() string { return l.Path(path.Join(DataDir, "machine-id")) }

// Unit is the name of a process's systemd unit, of its program, and of the user that it runs as where there is one.
func Unit(role authzv1.Role) string { return "shoal-" + identity.RoleName(role) }

// Workers are the processes of every machine that runs containers.
func Workers() []authzv1.Role {
	return []authzv1.Role{authzv1.Role_ROLE_MESHPROXY, authzv1.Role_ROLE_AGENT}
}

// All are the processes of a manager, in the order in which a person reads them.
func All() []authzv1.Role { return append(Control(), Workers()...) }

// Control are the processes that decide, and that other machines dial.
func Control() []authzv1.Role {
	return []authzv1.Role{
		authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_CA, authzv1.Role_ROLE_SCHEDULER, authzv1.Role_ROLE_DISPATCHER, authzv1.Role_ROLE_GATEWAY,
	}
}

// IsControl says that the role is a control process's.
func IsControl(role authzv1.Role) bool { return slices.Contains(Control(), role) }

// Port is where a process listens unless its configuration says else; 0: nowhere.
func Port(role authzv1.Role) int {
	return map[authzv1.Role]int{
		authzv1.Role_ROLE_CA: 2377, authzv1.Role_ROLE_STORE: 2381, authzv1.Role_ROLE_SCHEDULER: 2382,
		authzv1.Role_ROLE_DISPATCHER: 2383, authzv1.Role_ROLE_GATEWAY: 2384, authzv1.Role_ROLE_MESHPROXY: 2385,
	}[role]
}

// ParseRoles reads names of processes. All that are wrong are told at once; the answer is in the order of All, each once.
func ParseRoles(names []string) ([]authzv1.Role, error) {
	var c errs.Collector
	var named []authzv1.Role
	for _, n := range names {
		role, err := identity.ParseRole(strings.TrimSpace(n))
		if err != nil || !slices.Contains(All(), role) {
			c.Add("roles", "%q is none of %s", n, Names(All()))
			continue
		}
		named = append(named, role)
	}
	return Sorted(named), c.Err("roles")
}

// Sorted is a list of roles in the order of All, each once.
func Sorted(roles []authzv1.Role) []authzv1.Role {
	return slices.DeleteFunc(All(), func(r authzv1.Role) bool { return !slices.Contains(roles, r) })
}

// Without is the first list without the roles of the second.
func Without(roles, less []authzv1.Role) []authzv1.Role {
	return slices.DeleteFunc(slices.Clone(roles), func(r authzv1.Role) bool { return slices.Contains(less, r) })
}

// Names are roles for people.
func Names(roles []authzv1.Role) string {
	var out []string
	for _, r := range roles {
		out = append(out, identity.RoleName(r))
	}
	return strings.Join(out, ", ")
}

// Units are the units of roles, in their order.
func Units(roles []authzv1.Role) []string {
	var out []string
	for _, r := range roles {
		out = append(out, Unit(r))
	}
	return out
}
