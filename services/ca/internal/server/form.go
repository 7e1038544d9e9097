package server

import (
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	"github.com/shoalproject/shoal/services/ca/internal/issue"
	"github.com/shoalproject/shoal/services/ca/internal/root"
)

// wrapKeySize is that of an X25519 public key.
const wrapKeySize = 32

// maxVouchers bounds what one request costs: each is tried with the machine's other keys.
const maxVouchers = 8

// validateOne finds the faults of one certificate request.
func validateOne(c *errs.Collector, i int, r *cav1.CertificateRequest, twice bool) {
	field := "requests[" + strconv.Itoa(i) + "]"
	role := r.GetRole()
	_, err := identity.ParseRole(identity.RoleName(role))
	c.Check(err == nil && !identity.IsPerson(role), field+".role", "%s is not a process's", identity.RoleName(role))
	c.Check(!twice, field+".role", "%s is asked for twice", identity.RoleName(role))
	_, err = root.PublicKey(r.GetCsr())
	c.Merge(field+".csr", err)
	c.Check(len(r.GetVouchers()) <= maxVouchers, field+".vouchers", "are %d, at most %d are taken", len(r.GetVouchers()), maxVouchers)
	if issue.HoldsWrapKey(role) {
		c.Check(len(r.GetWrapKey()) == wrapKeySize, field+".wrap_key", "is not an X25519 public key of %d bytes", wrapKeySize)
	} else {
		c.Check(len(r.GetWrapKey()) == 0, field+".wrap_key", "is for roles ca and store alone")
	}
}

func validID(s string) bool {
	return len(s) == idChars && strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// validAddress is an address without a port, as others may dial it.
func validAddress(s string) bool {
	if ip, err := netip.ParseAddr(s); err == nil {
		return !ip.IsUnspecified() && !ip.IsMulticast()
	}
	return len(root.Hosts([]string{s})) == 1
}

// clip bounds a stranger's words for a log line or an error.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
