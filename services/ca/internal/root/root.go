// Package root is the hierarchy of certificates: a root, an issuing certificate a CA process, leaves.
//
// It owns the form of each certificate, and signs through cfssl's local signer under a policy that takes nothing but the
// public key from a request: names, times and serial numbers are the caller's. Each certificate is read again before it is
// handed out, and one that is not exactly what was asked for is an error. It must never decide who may have what
// (internal/issue does), and it keeps nothing. A Signer does not change and is safe for concurrent use.
package root

import (
	"crypto/ecdsa"
	"crypto/x509"
	"io"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
)

const (
	// Life of a root.
	Life = 20 * 365 * 24 * time.Hour
	// IssuingLife is that of an issuing certificate.
	IssuingLife = 30 * 24 * time.Hour
	// Backdate is how far back validity may begin, for the sake of clocks that are behind.
	Backdate = time.Hour
)

// Signer is a certificate that signs others, with its key.
type Signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes a root: self-signed, P-256, for Life.
func New(r io.Reader, cluster string, now time.Time) (*Signer, error) {
	key, err := identity.NewKey(r)
	if err != nil {
		return nil, errs.New(errs.Internal, "make the root key: %w", err)
	}
	w := wanted{
		profile: rootProfile, subject: "shoal root " + cluster,
		notBefore: now.Add(-Backdate), notAfter: now.Add(Life), serial: newSerial(r),
	}
	cert, err := sign(r, nil, key, key, w)
	if err != nil {
		return nil, errs.New(errs.Internal, "sign the root: %w", err)
	}
	return &Signer{cert: cert, key: key}, nil
}

// Open pairs a certificate in PEM with its key in PEM.
func Open(certPEM, keyPEM []byte) (*Signer, error) {
	certs, err := identity.DecodeCertificates(certPEM)
	if err != nil {
		return nil, err
	}
	key, err := identity.DecodeKey(keyPEM)
	if err != nil {
		return nil, err
	}
	if !certs[0].IsCA {
		return nil, errs.New(errs.Invalid, "%q is no certificate of an authority", certs[0].Subject.CommonName)
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, errs.New(errs.Invalid, "the key is not that of %q", certs[0].Subject.CommonName)
	}
	return &Signer{cert: certs[0], key: key}, nil
}

// Certificate is the signer's own.
func (s *Signer) Certificate() *x509.Certificate { return s.cert }

// PEM is the certificate in PEM.
func (s *Signer) PEM() []byte { return identity.EncodeCertificates(s.cert) }

// KeyPEM is the private key in PEM. It goes to a file of mode 0600 or into the keyset's seal, and nowhere else.
func (s *Signer) KeyPEM() ([]byte, error) { return identity.EncodeKey(s.key) }

// String keeps the key out of anything that prints a Signer.
func (s *Signer) String() string { return s.cert.Subject.CommonName }

// GoString does the same for %#v.
func (s *Signer) GoString() string { return s.String() }

// Issuing makes the issuing certificate of one CA process, for a key made here. It may sign leaves and nothing else.
func (s *Signer) Issuing(r io.Reader, name string, now time.Time) (*Signer, error) {
	key, err := identity.NewKey(r)
	if err != nil {
		return nil, errs.New(errs.Internal, "make an issuing key: %w", err)
	}
	w := wanted{
		profile: issuingProfile, subject: "shoal issuing " + name,
		notBefore: later(now.Add(-Backdate), s.cert.NotBefore), notAfter: earlier(now.Add(IssuingLife), s.cert.NotAfter),
		serial: newSerial(r),
	}
	cert, err := sign(r, s.cert, s.key, key, w)
	if err != nil {
		return nil, errs.New(errs.Internal, "sign an issuing certificate: %w", err)
	}
	return &Signer{cert: cert, key: key}, nil
}

// Leaf is what a leaf shall be.
type Leaf struct {
	// ID becomes the one URI name.
	ID identity.ID
	// CSR has the public key, and nothing else that counts: PKCS #10 in DER.
	CSR []byte
	// Hosts are IP addresses and DNS names, for those whom people dial.
	Hosts []string
	// Life is the longest; a leaf never outlives its issuer.
	Life time.Duration
	// NotBefore is the earliest that its validity may begin, although it is backdated; zero: any.
	NotBefore time.Time
}

// Leaf signs a leaf. Errors: Invalid (the request), Unavailable (the issuer is about to run out).
func (s *Signer) Leaf(r io.Reader, leaf Leaf, now time.Time) (*x509.Certificate, error) {
	key, err := PublicKey(leaf.CSR)
	if err != nil {
		return nil, err
	}
	notBefore, notAfter, err := s.window(leaf.Life, now)
	if err != nil {
		return nil, err
	}
	notBefore = later(notBefore, leaf.NotBefore)
	w := wanted{
		profile: leafProfile, subject: leaf.ID.Member(), id: leaf.ID, hosts: Hosts(leaf.Hosts), csr: leaf.CSR,
		notBefore: notBefore, notAfter: notAfter, serial: newSerial(r), key: key,
	}
	cert, err := sign(r, s.cert, s.key, nil, w)
	if err != nil {
		return nil, errs.New(errs.Internal, "sign a certificate for %s: %w", leaf.ID, err)
	}
	return cert, nil
}

// shortest is what is left of a certificate that is still worth having.
const shortest = time.Minute

// window is a leaf's validity. It is backdated by an hour, but by no more than a fifth of what is left of it: renewal is due
// from 30 % of the whole on, and must not be due at once.
func (s *Signer) window(life time.Duration, now time.Time) (notBefore, notAfter time.Time, err error) {
	notAfter = earlier(now.Add(life), s.cert.NotAfter)
	left := notAfter.Sub(now)
	if left < shortest {
		return notBefore, notAfter, errs.New(errs.Unavailable, "%q runs out at %s, and it is %s on this CA's clock: it waits for its own next certificate",
			s.cert.Subject.CommonName, s.cert.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	notBefore = later(now.Add(-min(Backdate, left/5)), s.cert.NotBefore)
	if notBefore.After(now) {
		return notBefore, notAfter, errs.New(errs.Unavailable, "%q is valid from %s, and it is %s on this CA's clock; set the clocks right",
			s.cert.Subject.CommonName, s.cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return notBefore, notAfter, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
