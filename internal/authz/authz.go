// Package authz says whether a caller may call a method.
//
// The rules are the method options of the protos (shoal.authz.v1.allow) and, for services that are not ours, one short
// table. A Registry is made from what a server serves; a method without a rule fails it, so that a server with a gap does
// not start. Default is refusal; methods are compared whole, never by prefix.
//
// It must never look at certificates (internal/identity) or at request contents (the store does, in Apply). A Registry does
// not change after New and is safe for concurrent use.
package authz

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
)

// Caller is who stands behind a call.
type Caller struct {
	// Principal is whose rights count. A caller without a certificate is ROLE_ANONYMOUS without a name.
	Principal identity.ID
	// Via are the members that passed the call on, first to last; empty for a direct call.
	Via []identity.ID
}

// Peer is who the connection belongs to.
type Peer struct {
	// ID is zero for a peer without a certificate.
	ID identity.ID
	// Expired says that its certificate has run out, within the grace.
	Expired bool
}

// Registry has the rule of every method of one server.
type Registry struct {
	rules map[string]*authzv1.Allow // by full method: "/shoal.ca.v1.CertificateService/Renew"
}

// New makes the registry of the services that a grpc.Server has (its GetServiceInfo). A method without a rule, or with one
// that allows nobody, is an error; all of them are named.
func New(services map[string]grpc.ServiceInfo) (*Registry, error) {
	r := &Registry{rules: map[string]*authzv1.Allow{}}
	var faults errs.Collector
	for _, service := range slices.Sorted(maps.Keys(services)) {
		for _, m := range services[service].Methods {
			full := "/" + service + "/" + m.Name
			rule, err := RuleOf(service, m.Name)
			if err != nil {
				faults.Add(full, "%s", err.Error())
				continue
			}
			r.rules[full] = rule
		}
	}
	if err := faults.Err("authorization"); err != nil {
		return nil, err
	}
	return r, nil
}

// RuleOf finds the rule of one method by its service's full name.
func RuleOf(service, method string) (*authzv1.Allow, error) {
	if rule := foreign(service); rule != nil {
		return rule, nil
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + method))
	if err != nil {
		return nil, errs.New(errs.Internal, "the service is unknown: register its proto, or add it to the table in internal/authz")
	}
	rule, ok := proto.GetExtension(d.Options(), authzv1.E_Allow).(*authzv1.Allow)
	if !ok || len(rule.GetRoles()) == 0 {
		return nil, errs.New(errs.Internal, "it says nobody may call it: set option (shoal.authz.v1.allow)")
	}
	if slices.Contains(rule.GetRoles(), authzv1.Role_ROLE_UNSPECIFIED) || slices.Contains(rule.GetForwardedBy(), authzv1.Role_ROLE_ANONYMOUS) {
		return nil, errs.New(errs.Internal, "its rule names a role that cannot be")
	}
	return rule, nil
}

// foreign is the table for services that are not ours; nil for all others.
func foreign(service string) *authzv1.Allow {
	switch service {
	case "grpc.health.v1.Health":
		return &authzv1.Allow{Roles: append(processRoles(), authzv1.Role_ROLE_OPERATOR, authzv1.Role_ROLE_VIEWER)}
	case "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection":
		return &authzv1.Allow{Roles: []authzv1.Role{authzv1.Role_ROLE_OPERATOR, authzv1.Role_ROLE_VIEWER}}
	}
	return nil
}

func processRoles() []authzv1.Role {
	return []authzv1.Role{
		authzv1.Role_ROLE_CA, authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_SCHEDULER, authzv1.Role_ROLE_DISPATCHER,
		authzv1.Role_ROLE_GATEWAY, authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY,
	}
}

// Methods are the full names of all methods, sorted.
func (r *Registry) Methods() []string { return slices.Sorted(maps.Keys(r.rules)) }

// Rule is a method's rule, nil if there is none. It must not be changed.
func (r *Registry) Rule(method string) *authzv1.Allow { return r.rules[method] }

// Check refuses (errs.Denied, with who, what and who may) or returns nil. The caller is as the server has verified or
// been told; peer is the connection's. A forwarded call is one whose caller has a Via.
func (r *Registry) Check(method string, caller Caller, peer Peer) error {
	rule := r.rules[method]
	if rule == nil {
		return errs.New(errs.Denied, "%s: no rule allows anybody to call it", method)
	}
	if peer.Expired && !acceptsExpired(rule, peer.ID.Role) {
		return errs.New(errs.Denied, "%s: the certificate of %s has run out; it may only be renewed, or the clocks differ", method, peer.ID)
	}
	if len(caller.Via) > 0 {
		if err := checkForward(method, rule, caller, peer); err != nil {
			return err
		}
	} else if caller.Principal != peer.ID && caller.Principal.Role != authzv1.Role_ROLE_ANONYMOUS {
		return errs.New(errs.Denied, "%s: %s speaks for %s", method, peer.ID, caller.Principal)
	}
	if !slices.Contains(rule.GetRoles(), caller.Principal.Role) {
		return errs.New(errs.Denied, "%s: %s may not call it; allowed: %s", method, name(caller.Principal), names(rule.GetRoles()))
	}
	return nil
}

// acceptsExpired: everybody's leaf where the rule says so for all, else only that of the roles named.
func acceptsExpired(rule *authzv1.Allow, role authzv1.Role) bool {
	return rule.GetAcceptExpired() || slices.Contains(rule.GetAcceptExpiredOf(), role)
}

// checkForward: the peer must be allowed to pass calls of this method on. A gateway speaks for people alone and is the
// first hop; a store speaks for whoever it has verified (CVE-2023-1782 is a hop that was not checked again).
func checkForward(method string, rule *authzv1.Allow, caller Caller, peer Peer) error {
	if !slices.Contains(rule.GetForwardedBy(), peer.ID.Role) {
		return errs.New(errs.Denied, "%s: %s may not pass calls on for others", method, name(peer.ID))
	}
	if caller.Via[len(caller.Via)-1] != peer.ID {
		return errs.New(errs.Denied, "%s: the call's path does not end with %s, which brings it", method, peer.ID)
	}
	for i, hop := range caller.Via {
		switch {
		case hop.Cluster != peer.ID.Cluster || caller.Principal.Cluster != peer.ID.Cluster:
			return errs.New(errs.Denied, "%s: a call passed on from another cluster", method)
		case hop.Role == authzv1.Role_ROLE_STORE:
		case hop.Role == authzv1.Role_ROLE_GATEWAY && i == 0 && identity.IsPerson(caller.Principal.Role):
		default:
			return errs.New(errs.Denied, "%s: %s may not pass a call of %s on", method, hop, caller.Principal)
		}
	}
	return nil
}

func name(id identity.ID) string {
	if id.IsZero() || id.Role == authzv1.Role_ROLE_ANONYMOUS {
		return "a caller without a certificate"
	}
	return id.Member()
}

func names(roles []authzv1.Role) string {
	s := make([]string, len(roles))
	for i, r := range roles {
		s[i] = identity.RoleName(r)
	}
	return strings.Join(s, ", ")
}
