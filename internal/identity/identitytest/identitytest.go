// Package identitytest makes certificates for tests: a root, an issuing certificate below it, and leaves with any fault that
// a test wants. Only tests import it; it must never sign for a cluster that people use. An Authority does not change after
// it is made and is safe for concurrent use.
package identitytest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"path"
	"testing"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

// years is how long the root and the issuing certificate of an Authority last, both ways from its start: longer than any
// test's clock wanders.
const years = 10 * 365 * 24 * time.Hour

// Life is how long a leaf lasts when a test does not say.
const Life = 72 * time.Hour

// Authority is a cluster's CA.
type Authority struct {
	// Cluster is its trust domain.
	Cluster string
	// Root is the root certificate.
	Root *x509.Certificate

	issuer *x509.Certificate
	key    *ecdsa.PrivateKey
	env    run.Env
}

// New makes the CA of a cluster, by env's clock.
func New(tb testing.TB, env run.Env, cluster string) *Authority {
	tb.Helper()
	now := env.Now()
	rootKey, key := newKey(tb), newKey(tb)
	root := certificate(tb, caTemplate(cluster+" root", now), nil, rootKey, rootKey)
	issuer := certificate(tb, caTemplate(cluster+" issuing", now), root, key, rootKey)
	return &Authority{Cluster: cluster, Root: root, issuer: issuer, key: key, env: env}
}

// Bundle is what members of the cluster trust, in PEM.
func (a *Authority) Bundle() []byte { return identity.EncodeCertificates(a.Root) }

// ID is an identity of the cluster.
func (a *Authority) ID(role authzv1.Role, name string) identity.ID {
	return identity.ID{Cluster: a.Cluster, Role: role, Name: name}
}

// Leaf is what a certificate says. Zero fields are filled: both usages, and Life from the present on.
type Leaf struct {
	// URIs are its names; a sound certificate has one.
	URIs []string
	// NotBefore and NotAfter are its life.
	NotBefore, NotAfter time.Time
	// Usage is what it may be used for.
	Usage []x509.ExtKeyUsage
}

// Sign issues a leaf for a public key: the chain in PEM, leaf and issuer.
func (a *Authority) Sign(tb testing.TB, leaf Leaf, public *ecdsa.PublicKey) []byte {
	tb.Helper()
	t := &x509.Certificate{
		SerialNumber: serial(tb), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, ExtKeyUsage: leaf.Usage,
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	if t.NotBefore.IsZero() {
		t.NotBefore = a.env.Now().Add(-time.Minute)
	}
	if t.NotAfter.IsZero() {
		t.NotAfter = a.env.Now().Add(Life)
	}
	if t.ExtKeyUsage == nil {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	}
	for _, s := range leaf.URIs {
		u, err := url.Parse(s)
		if err != nil {
			tb.Fatal(err)
		}
		t.URIs = append(t.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.issuer, public, a.key)
	return identity.EncodeCertificates(parsed(tb, der, err), a.issuer)
}

// Certificate issues a leaf with a new key, as crypto/tls has it.
func (a *Authority) Certificate(tb testing.TB, leaf Leaf) tls.Certificate {
	tb.Helper()
	key := newKey(tb)
	certs, err := identity.DecodeCertificates(a.Sign(tb, leaf, &key.PublicKey))
	if err != nil {
		tb.Fatal(err)
	}
	out := tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for _, c := range certs {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out
}

// SignCSR issues a leaf for a request in DER.
func (a *Authority) SignCSR(tb testing.TB, leaf Leaf, csr []byte) []byte {
	tb.Helper()
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		tb.Fatal(err)
	}
	public, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		tb.Fatalf("a CSR with a %T", req.PublicKey)
	}
	return a.Sign(tb, leaf, public)
}

// Keeper writes an identity folder of a sound leaf to env's files, and loads it.
func (a *Authority) Keeper(tb testing.TB, env run.Env, id identity.ID) *identity.Keeper {
	tb.Helper()
	return a.KeeperOf(tb, env, Leaf{URIs: []string{id.URI()}})
}

// KeeperOf does the same for any leaf that Load takes.
func (a *Authority) KeeperOf(tb testing.TB, env run.Env, leaf Leaf) *identity.Keeper {
	tb.Helper()
	dir := path.Join("/identities", identity.NewID(env.Rand))
	a.Write(tb, env, dir, leaf)
	k, err := identity.Load(env, dir)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// Write writes an identity folder of a leaf with a new key.
func (a *Authority) Write(tb testing.TB, env run.Env, dir string, leaf Leaf) {
	tb.Helper()
	key := newKey(tb)
	if err := identity.Write(env.Files, dir, a.Sign(tb, leaf, &key.PublicKey), a.Bundle(), key); err != nil {
		tb.Fatal(err)
	}
}

func caTemplate(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-years), NotAfter: now.Add(years),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// certificate signs a template for key; a nil parent is the template itself.
func certificate(tb testing.TB, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	tb.Helper()
	template.SerialNumber = serial(tb)
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	return parsed(tb, der, err)
}

func parsed(tb testing.TB, der []byte, err error) *x509.Certificate {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := identity.NewKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func serial(tb testing.TB) *big.Int {
	tb.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		tb.Fatal(err)
	}
	return n.Add(n, big.NewInt(1))
}
