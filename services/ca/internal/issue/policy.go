package issue

import (
	"net"
	"slices"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/process"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Roles lists what the processes of a machine of that kind may be.
func Roles(kind typesv1.NodeRole) []authzv1.Role {
	node := []authzv1.Role{authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY}
	switch kind {
	case typesv1.NodeRole_NODE_ROLE_WORKER:
		return node
	case typesv1.NodeRole_NODE_ROLE_MANAGER:
		return append(ServiceRoles(), node...)
	case typesv1.NodeRole_NODE_ROLE_UNSPECIFIED:
	}
	return nil
}

// ServiceRoles lists the control processes: those that have a Member and may be dialled.
func ServiceRoles() []authzv1.Role {
	return []authzv1.Role{
		authzv1.Role_ROLE_CA, authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_SCHEDULER,
		authzv1.Role_ROLE_DISPATCHER, authzv1.Role_ROLE_GATEWAY,
	}
}

// IsService says that the role is a control process's.
func IsService(role authzv1.Role) bool { return slices.Contains(ServiceRoles(), role) }

// HoldsWrapKey says that keys are wrapped to processes of the role.
func HoldsWrapKey(role authzv1.Role) bool {
	return role == authzv1.Role_ROLE_CA || role == authzv1.Role_ROLE_STORE
}

// dialled says that people dial processes of the role, with tools that look at names.
func dialled(role authzv1.Role) bool {
	return role == authzv1.Role_ROLE_GATEWAY || HoldsWrapKey(role)
}

// Port is where a role listens unless its configuration says else; 0 for those that have no Member.
func Port(role authzv1.Role) int {
	switch role {
	case authzv1.Role_ROLE_CA:
		return 2377
	case authzv1.Role_ROLE_STORE:
		return 2381
	case authzv1.Role_ROLE_SCHEDULER:
		return 2382
	case authzv1.Role_ROLE_DISPATCHER:
		return 2383
	case authzv1.Role_ROLE_GATEWAY:
		return 2384
	default:
		return 0
	}
}

// HostsOf are the names beside the identity: for processes that people dial, the hosts of the recorded addresses
// (host:port) and the hostname; else none.
func HostsOf(role authzv1.Role, addresses []string, hostname string) []string {
	if !dialled(role) {
		return nil
	}
	var out []string
	for _, a := range addresses {
		if host, _, err := net.SplitHostPort(a); err == nil {
			out = append(out, host)
		}
	}
	if hostname != "" {
		out = append(out, hostname)
	}
	return out
}

// MembersOf are the ids of all identities that a machine may have.
func MembersOf(machine string) []string {
	var out []string
	for _, r := range Roles(typesv1.NodeRole_NODE_ROLE_MANAGER) {
		out = append(out, identity.ID{Role: r, Name: machine}.Member())
	}
	return out
}

// DefaultWeight is a member's share of load.
const DefaultWeight = 10

// NewMember is a control process as the CA first records it.
func NewMember(id identity.ID, hostname string, addresses []string, version string, wrapKey []byte) *typesv1.Member {
	return &typesv1.Member{
		Meta: &typesv1.Meta{Id: id.Member()}, Role: id.Role, MachineId: id.Name, Hostname: hostname, Addresses: addresses,
		Version: version, FeatureLevel: process.FeatureLevel, WrapKey: wrapKey, Weight: DefaultWeight,
	}
}

// MemberFields are the fields that NewMember sets.
func MemberFields() []string {
	return []string{"role", "machine_id", "hostname", "addresses", "version", "feature_level", "wrap_key", "weight"}
}
