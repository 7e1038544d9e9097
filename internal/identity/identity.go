// Package identity is who a process is, and whom it believes.
//
// It owns: the one URI of a certificate (spiffe://<cluster>/<role>/<name>), the process's leaf, key and trust bundle on disk,
// the deny list, the only TLS configurations in the house, and the renewal of the leaf. TLS is 1.3 and nothing else;
// certificates and trust are read at each handshake, so that a renewal or a rotation needs no restart and cuts nothing.
//
// It must never decide what a peer may do (internal/authz does), never send a private key anywhere, and never log one.
// A Keeper is safe for concurrent use: readers take one atomic pointer, and writers replace what it points to.
package identity

import (
	"crypto/x509"
	"math/big"
	"strings"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

const (
	scheme  = "spiffe://"
	idChars = 25 // of base36: the shortest that holds 128 bits
	maxName = 64
)

// ID is who somebody is: one process of a role on a machine, or a person.
type ID struct {
	// Cluster is the trust domain.
	Cluster string
	// Role is what the certificate lets its holder be.
	Role authzv1.Role
	// Name is the machine id; for an operator or viewer the person's name.
	Name string
}

// URI is the identity as the one URI SAN of a certificate.
func (id ID) URI() string { return scheme + id.Cluster + "/" + RoleName(id.Role) + "/" + id.Name }

// Member is "role/name": the id of the process's Member object, and of a denial of it.
func (id ID) Member() string { return RoleName(id.Role) + "/" + id.Name }

// String is the same as Member, for logs.
func (id ID) String() string { return id.Member() }

// IsZero says that this is nobody.
func (id ID) IsZero() bool { return id == ID{} }

// Parse reads a URI that URI has made. Anything that is not exactly in that form is an error of kind Invalid.
func Parse(uri string) (ID, error) {
	rest, ok := strings.CutPrefix(uri, scheme)
	if !ok {
		return ID{}, errs.New(errs.Invalid, "identity %q does not begin with %s", uri, scheme)
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 3 {
		return ID{}, errs.New(errs.Invalid, "identity %q is not %s<cluster>/<role>/<name>", uri, scheme)
	}
	role, err := ParseRole(parts[1])
	if err != nil {
		return ID{}, errs.New(errs.Invalid, "identity %q: %w", uri, err)
	}
	if !validName(parts[0], "-") || !validName(parts[2], "-._@") {
		return ID{}, errs.New(errs.Invalid, "identity %q: cluster and name are 1 to %d lower-case letters, digits and - (in names also . _ @)", uri, maxName)
	}
	return ID{Cluster: parts[0], Role: role, Name: parts[2]}, nil
}

// validName keeps everything out that means something in a URI, a path or a header.
func validName(s, more string) bool {
	if s == "" || len(s) > maxName || strings.Trim(s, ".") == "" {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune(more, c) {
			return false
		}
	}
	return true
}

// RoleName is the role in lower case, as in identities, folders and configs: "scheduler".
func RoleName(r authzv1.Role) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_"))
}

// ParseRole reads RoleName's form. A role that no certificate can have (unspecified, anonymous) is refused.
func ParseRole(s string) (authzv1.Role, error) {
	r := authzv1.Role(authzv1.Role_value["ROLE_"+strings.ToUpper(s)])
	if r == authzv1.Role_ROLE_UNSPECIFIED || r == authzv1.Role_ROLE_ANONYMOUS || RoleName(r) != s {
		return 0, errs.New(errs.Invalid, "role %q is not one of ca, store, scheduler, dispatcher, gateway, agent, meshproxy, operator, viewer", s)
	}
	return r, nil
}

// IsPerson says that the role is a person's, not a process's.
func IsPerson(r authzv1.Role) bool {
	return r == authzv1.Role_ROLE_OPERATOR || r == authzv1.Role_ROLE_VIEWER
}

// NewID makes an id: 25 characters of base36 from 128 random bits.
func NewID(r *run.Rand) string {
	var b [16]byte
	_, _ = r.Read(b[:]) // a *run.Rand never fails
	return Base36(b[:], idChars)
}

// Base36 is the big-endian number in b, in base 36 of the given width, with leading zeros.
func Base36(b []byte, width int) string {
	s := new(big.Int).SetBytes(b).Text(36)
	if len(s) < width {
		s = strings.Repeat("0", width-len(s)) + s
	}
	return s
}

// Serial is a certificate's serial number as the store and the deny list have it: lower-case hex.
func Serial(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

// OfCertificate is the identity in a certificate. One with no URI SAN, or several, has none (CVE-2022-40716 is what
// becomes of taking the first).
func OfCertificate(cert *x509.Certificate) (ID, error) {
	if len(cert.URIs) != 1 {
		return ID{}, errs.New(errs.Denied, "certificate %s has %d URI names, wanted exactly one", Serial(cert), len(cert.URIs))
	}
	id, err := Parse(cert.URIs[0].String())
	if err != nil {
		return ID{}, errs.New(errs.Denied, "certificate %s: %w", Serial(cert), err)
	}
	return id, nil
}
