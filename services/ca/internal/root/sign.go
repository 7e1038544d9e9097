package root

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cloudflare/cfssl/config"
	"github.com/cloudflare/cfssl/signer"
	"github.com/cloudflare/cfssl/signer/local"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
)

// wanted is a certificate before it is signed.
type wanted struct {
	profile             func() *config.SigningProfile
	subject             string
	id                  identity.ID // zero for an authority
	hosts               []string
	csr                 []byte // nil: made here for the subject's key
	key                 *ecdsa.PublicKey
	notBefore, notAfter time.Time
	serial              *big.Int
}

// keyOnly is the whole of what any profile takes from a request.
func keyOnly() *config.CSRWhitelist {
	return &config.CSRWhitelist{PublicKey: true, PublicKeyAlgorithm: true}
}

func profile(usage []string, ca config.CAConstraint) *config.SigningProfile {
	return &config.SigningProfile{
		Usage: usage, CAConstraint: ca, CSRWhitelist: keyOnly(), ClientProvidesSerialNumbers: true,
		// Required by cfssl; each request says its own times.
		Expiry: time.Hour, ExpiryString: "1h",
	}
}

func rootProfile() *config.SigningProfile {
	return profile([]string{"cert sign", "crl sign"}, config.CAConstraint{IsCA: true, MaxPathLen: 1})
}

func issuingProfile() *config.SigningProfile {
	return profile([]string{"cert sign", "crl sign", "digital signature"}, config.CAConstraint{IsCA: true, MaxPathLenZero: true})
}

func leafProfile() *config.SigningProfile {
	return profile([]string{"digital signature", "server auth", "client auth"}, config.CAConstraint{})
}

// sign makes the certificate w, signed by the key of issuer; issuer is nil for a root. Own is the key of a subject that is
// made here.
func sign(r io.Reader, issuer *x509.Certificate, key, own *ecdsa.PrivateKey, w wanted) (*x509.Certificate, error) {
	if w.csr == nil {
		csr, err := identity.CSR(r, own)
		if err != nil {
			return nil, err
		}
		w.csr, w.key = csr, &own.PublicKey
	}
	s, err := local.NewSigner(key, issuer, signer.DefaultSigAlgo(key), &config.Signing{Default: w.profile()})
	if err != nil {
		return nil, err
	}
	hosts := slices.Clone(w.hosts)
	if !w.id.IsZero() {
		hosts = append(hosts, w.id.URI())
	}
	signed, err := s.Sign(signer.SignRequest{
		Request:   string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: w.csr})),
		Hosts:     append([]string{}, hosts...), // not nil: nil would mean the request's
		Subject:   &signer.Subject{CN: w.subject},
		Serial:    w.serial,
		NotBefore: w.notBefore,
		NotAfter:  w.notAfter,
	})
	if err != nil {
		return nil, err
	}
	certs, err := identity.DecodeCertificates(signed)
	if err != nil {
		return nil, err
	}
	return certs[0], w.check(certs[0])
}

// check compares a signed certificate with what was asked for. The signer's library sorts names by their look (a name with
// an @ may be taken for a mail address); a certificate with a name too many must not leave.
func (w wanted) check(c *x509.Certificate) error {
	var faults errs.Collector
	faults.Check(w.key.Equal(c.PublicKey), "key", "is another one")
	faults.Check(c.SerialNumber.Cmp(w.serial) == 0, "serial", "is another one")
	faults.Check(c.Subject.CommonName == w.subject && len(c.Subject.Names) == 1, "subject", "is %s", c.Subject)
	faults.Check(len(c.EmailAddresses) == 0, "mail addresses", "there are some")
	faults.Check(len(c.IPAddresses)+len(c.DNSNames) == len(w.hosts), "hosts", "are %v and %v", c.IPAddresses, c.DNSNames)
	if w.id.IsZero() {
		faults.Check(c.IsCA && len(c.URIs) == 0, "form", "is not an authority's")
		return faults.Err("signed certificate")
	}
	id, err := identity.OfCertificate(c)
	faults.Check(err == nil && id == w.id, "identity", "is %v, wanted %s", c.URIs, w.id.URI())
	faults.Check(!c.IsCA, "form", "is an authority's")
	return faults.Err("signed certificate")
}

// PublicKey takes the key from a request (PKCS #10, DER): P-256, and proven by the request's own signature.
func PublicKey(csr []byte) (*ecdsa.PublicKey, error) {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, errs.New(errs.Invalid, "the certificate request is not PKCS #10 in DER: %w", err)
	}
	key, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errs.New(errs.Invalid, "the key of the certificate request is %s, wanted ECDSA P-256", req.PublicKeyAlgorithm)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, errs.New(errs.Invalid, "the certificate request is not signed with its own key: %w", err)
	}
	return key, nil
}

// Hosts keeps what can be a name in a certificate, each once: IP addresses without a zone, and DNS names.
func Hosts(addresses []string) []string {
	var out []string
	for _, a := range addresses {
		if ip, err := netip.ParseAddr(a); err == nil {
			a = ip.WithZone("").Unmap().String()
		} else if !validDNS(a) {
			continue
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func validDNS(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "-") != label {
			return false
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}

// newSerial is a serial number of 128 random bits, and never 0.
func newSerial(r io.Reader) *big.Int {
	var b [16]byte
	for {
		_, _ = io.ReadFull(r, b[:]) // a *run.Rand never fails
		if n := new(big.Int).SetBytes(b[:]); n.Sign() > 0 {
			return n
		}
	}
}
