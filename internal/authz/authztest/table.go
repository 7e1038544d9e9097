// Package authztest proves, over real connections, that every RPC is refused to everybody whom its rule does not name, and
// reaches its handler for everybody whom it does.
//
// The truth is a text table that people read and change by hand, one row an RPC; it is held against the protos and against
// a running server. Only tests import this package. Its functions keep no state.
package authztest

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/authz"
	"github.com/shoalproject/shoal/internal/identity"
)

// Rule is one row of the table.
type Rule struct {
	// Method is its full name: "/shoal.ca.v1.CertificateService/Renew".
	Method string
	// Roles may call it.
	Roles []authzv1.Role
	// ForwardedBy may pass calls of these roles on.
	ForwardedBy []authzv1.Role
	// Expired are the roles whose leaf may have run out, within the grace.
	Expired []authzv1.Role
}

// Roles are all that a certificate can have.
func Roles() []authzv1.Role {
	var out []authzv1.Role
	for r := authzv1.Role_ROLE_UNSPECIFIED + 1; r < authzv1.Role_ROLE_ANONYMOUS; r++ {
		out = append(out, r)
	}
	return out
}

// Services are all services of ours whose protos the test has imported, by name.
func Services() []protoreflect.ServiceDescriptor {
	var out []protoreflect.ServiceDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			if s := f.Services().Get(i); strings.HasPrefix(string(s.FullName()), "shoal.") {
				out = append(out, s)
			}
		}
		return true
	})
	slices.SortFunc(out, func(a, b protoreflect.ServiceDescriptor) int {
		return strings.Compare(string(a.FullName()), string(b.FullName()))
	})
	return out
}

// Table writes the rules that a registry has, one row a method.
func Table(r *authz.Registry) string {
	var b strings.Builder
	for _, m := range r.Methods() {
		rule := r.Rule(m)
		expired := names(rule.GetAcceptExpiredOf())
		if rule.GetAcceptExpired() {
			expired = names(rule.GetRoles())
		}
		fmt.Fprintf(&b, "%s\n\troles %s\n\tforwarded_by %s\n\texpired %s\n", m, names(rule.GetRoles()), names(rule.GetForwardedBy()), expired)
	}
	return b.String()
}

// Parse reads what Table writes. Lines that begin with # are comments.
func Parse(table string) ([]Rule, error) {
	var out []Rule
	for i, line := range strings.Split(table, "\n") {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case word == "" || strings.HasPrefix(word, "#"):
			continue
		case strings.HasPrefix(word, "/"):
			out = append(out, Rule{Method: word})
			continue
		case len(out) == 0:
			return nil, fmt.Errorf("line %d: %q belongs to no method", i+1, line)
		}
		roles, err := parseRoles(rest)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		rule := &out[len(out)-1]
		switch word {
		case "roles":
			rule.Roles = roles
		case "forwarded_by":
			rule.ForwardedBy = roles
		case "expired":
			rule.Expired = roles
		default:
			return nil, fmt.Errorf("line %d: %q is not roles, forwarded_by or expired", i+1, word)
		}
	}
	return out, nil
}

func names(roles []authzv1.Role) string {
	if len(roles) == 0 {
		return "-"
	}
	sorted := slices.Sorted(slices.Values(roles))
	out := make([]string, len(sorted))
	for i, r := range sorted {
		out[i] = identity.RoleName(r)
	}
	return strings.Join(out, " ")
}

func parseRoles(s string) ([]authzv1.Role, error) {
	var out []authzv1.Role
	for _, name := range strings.Fields(s) {
		switch name {
		case "-":
		case identity.RoleName(authzv1.Role_ROLE_ANONYMOUS):
			out = append(out, authzv1.Role_ROLE_ANONYMOUS)
		default:
			r, err := identity.ParseRole(name)
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
	}
	return out, nil
}
