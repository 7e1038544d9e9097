package root_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	"github.com/shoalproject/shoal/services/ca/internal/root"
)

func issuing(t *testing.T, r *run.Rand, now time.Time) *root.Signer {
	t.Helper()
	top, err := root.New(r, "c1", now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := top.Issuing(r, "m1", now)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Certificate().CheckSignatureFrom(top.Certificate()); err != nil || !s.Certificate().MaxPathLenZero {
		t.Errorf("issuing certificate: %v, path length zero %v", err, s.Certificate().MaxPathLenZero)
	}
	return s
}

func csr(t *testing.T, r *run.Rand, curve elliptic.Curve) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, r)
	if err != nil {
		t.Fatal(err)
	}
	out, err := identity.CSR(r, key)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestALeafNeverOutlivesItsIssuerNorBeginsBeforeIt(t *testing.T) {
	r, start := run.NewRand(1), time.Now().Truncate(time.Second)
	s := issuing(t, r, start)
	id := identity.ID{Cluster: "c1", Role: authzv1.Role_ROLE_AGENT, Name: "m1"}
	for _, c := range []struct{ after, life, left, back time.Duration }{
		{0, 72 * time.Hour, 72 * time.Hour, time.Hour},
		{0, 5 * time.Minute, 5 * time.Minute, time.Minute},
		{10 * 24 * time.Hour, 365 * 24 * time.Hour, 20 * 24 * time.Hour, time.Hour},
		{root.IssuingLife - 2*time.Hour, 72 * time.Hour, 2 * time.Hour, 24 * time.Minute},
	} {
		now := start.Add(c.after)
		cert, err := s.Leaf(r, root.Leaf{ID: id, CSR: csr(t, r, elliptic.P256()), Life: c.life}, now)
		if err != nil {
			t.Errorf("after %s: %v", c.after, err)
			continue
		}
		if left, back := cert.NotAfter.Sub(now), now.Sub(cert.NotBefore); left != c.left || back != c.back {
			t.Errorf("after %s: lasts %s from %s ago, wanted %s from %s ago", c.after, left, back, c.left, c.back)
		}
		// Renewal is due from 30 % of the whole on, which must not have passed at once.
		if whole := cert.NotAfter.Sub(cert.NotBefore); now.Sub(cert.NotBefore) > whole*25/100 {
			t.Errorf("after %s: due for renewal at once", c.after)
		}
	}
	for _, at := range []time.Duration{root.IssuingLife, -2 * time.Hour} {
		_, err := s.Leaf(r, root.Leaf{ID: id, CSR: csr(t, r, elliptic.P256()), Life: time.Hour}, start.Add(at))
		if !errs.Is(err, errs.Unavailable) {
			t.Errorf("signed %s after the issuer began: %v", at, err)
		}
	}
}

func TestOnlyP256RequestsAreTaken(t *testing.T) {
	r := run.NewRand(1)
	good := csr(t, r, elliptic.P256())
	if _, err := root.PublicKey(good); err != nil {
		t.Error(err)
	}
	good[len(good)-1] ^= 1
	for name, req := range map[string][]byte{"P-384": csr(t, r, elliptic.P384()), "empty": nil, "forged": good} {
		if _, err := root.PublicKey(req); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAPersonsNameMayLookLikeAMailAddress(t *testing.T) {
	r, now := run.NewRand(1), time.Now()
	id := identity.ID{Cluster: "c1", Role: authzv1.Role_ROLE_OPERATOR, Name: "ann@example.com"}
	cert, err := issuing(t, r, now).Leaf(r, root.Leaf{ID: id, CSR: csr(t, r, elliptic.P256()), Life: time.Hour}, now)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := identity.OfCertificate(cert); err != nil || got != id || len(cert.EmailAddresses) > 0 {
		t.Errorf("%v %v %v", got, err, cert.EmailAddresses)
	}
}

func TestHosts(t *testing.T) {
	got := root.Hosts([]string{"10.0.0.1", "fe80::1%eth0", "10.0.0.1", "a.example", "not a name", "spiffe://x/y", "a@b", "", "::ffff:10.0.0.2"})
	if diff := cmp.Diff([]string{"10.0.0.1", "fe80::1", "a.example", "10.0.0.2"}, got); diff != "" {
		t.Error(diff)
	}
}
