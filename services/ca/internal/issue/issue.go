// Package issue decides who gets which certificate, and for how long; internal/root makes it.
//
// It owns the policy (which roles a machine of a kind may have, how long leaves live, who signs whom, which names people may
// dial), the proof that a request comes from who was certified last, and the audit line of every issue and refusal. It must
// never hand out a certificate by itself: the caller commits the credential first. An Issuer is safe for concurrent use.
package issue

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/keyset"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/ca/internal/root"
)

// RootPurpose is what the root's key is sealed for.
const RootPurpose = "root key"

// Issuer signs with this process's issuing certificate.
type Issuer struct {
	env     run.Env
	metrics metrics
	issuing atomic.Pointer[root.Signer]
}

// New has no issuing certificate yet.
func New(env run.Env) *Issuer { return &Issuer{env: env, metrics: newMetrics(env.Metrics)} }

// Use puts an issuing certificate into force.
func (i *Issuer) Use(s *root.Signer) { i.issuing.Store(s) }

// Issuing is the issuing certificate in force; nil while there is none.
func (i *Issuer) Issuing() *root.Signer { return i.issuing.Load() }

// Issued is a certificate that may leave once its credential is committed.
type Issued struct {
	// ID is whose it is.
	ID identity.ID
	// Certificate is the leaf.
	Certificate *x509.Certificate
	// Chain is the leaf, then its issuer if that is not a root, in PEM.
	Chain []byte
	// Credential is its record in the store.
	Credential *typesv1.Credential
}

// Issue makes a leaf. Authority is for people's leaves, which live longer than an issuing certificate and so need the root;
// without it they live as long as the issuing certificate. Errors: Invalid (the request), Unavailable (no issuing
// certificate yet).
func (i *Issuer) Issue(leaf root.Leaf, authority func() (*root.Signer, error)) (Issued, error) {
	signer := i.Issuing()
	var chain []byte
	if authority != nil && identity.IsPerson(leaf.ID.Role) {
		top, err := authority()
		if err != nil {
			return Issued{}, err
		}
		signer = top
	} else {
		if signer == nil {
			return Issued{}, errs.New(errs.Unavailable, "this CA has no issuing certificate yet: it waits for the keyset from another CA; try again, or ask another CA")
		}
		chain = signer.PEM()
	}
	cert, err := signer.Leaf(i.env.Rand, leaf, i.env.Now())
	if err != nil {
		return Issued{}, err
	}
	return Issued{
		ID: leaf.ID, Certificate: cert, Credential: CredentialOf(leaf.ID, cert),
		Chain: append(identity.EncodeCertificates(cert), chain...),
	}, nil
}

// CredentialOf is the store's record of a certificate.
func CredentialOf(id identity.ID, cert *x509.Certificate) *typesv1.Credential {
	return &typesv1.Credential{
		Meta: &typesv1.Meta{Id: id.Member()}, Serial: identity.Serial(cert),
		PublicKeyHash: KeyHash(cert), NotAfter: timestamppb.New(cert.NotAfter),
	}
}

// KeyHash is the SHA-256 of a certificate's SubjectPublicKeyInfo.
func KeyHash(cert *x509.Certificate) []byte {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return sum[:]
}

// Authority opens the root from the cluster's record. It is nil, without an error, when the root key was taken out.
func Authority(k *keyset.Keyset, a *typesv1.Authority) (*root.Signer, error) {
	if len(a.GetRootKey().GetData()) == 0 {
		return nil, nil
	}
	key, err := k.Open(RootPurpose, a.GetRootKey())
	if err != nil {
		return nil, err
	}
	return root.Open(a.GetBundle(), key)
}

// AuditIssued writes the line of one certificate that leaves. Decision is "join", "renewal" or "issuing".
func (i *Issuer) AuditIssued(ctx context.Context, decision string, c Issued, attrs ...any) {
	i.metrics.issued.WithLabelValues(decision, identity.RoleName(c.ID.Role)).Inc()
	i.Audit(ctx, decision, append([]any{
		"id", c.ID.URI(), "serial", identity.Serial(c.Certificate),
		"not_before", c.Certificate.NotBefore, "not_after", c.Certificate.NotAfter,
	}, attrs...)...)
}

// AuditRefused writes the line of one call that was refused.
func (i *Issuer) AuditRefused(ctx context.Context, method string, err error, attrs ...any) {
	i.metrics.refused.WithLabelValues(method, errs.KindOf(err).String()).Inc()
	i.Audit(ctx, "refusal", append([]any{"method", method, "kind", errs.KindOf(err).String(), "reason", err.Error()}, attrs...)...)
}

// Audit writes the line of one decision. Never give it a token or a key.
func (i *Issuer) Audit(ctx context.Context, decision string, attrs ...any) {
	i.env.Log.InfoContext(ctx, "audit", append([]any{"decision", decision, "wall_time", i.env.Now().UTC()}, attrs...)...)
}

// Lives of leaves.
const (
	DefaultLife  = 72 * time.Hour
	ShortestLife = 5 * time.Minute
	PersonLife   = 365 * 24 * time.Hour
)

// Life is how long a leaf of the role lives.
func Life(spec *typesv1.ClusterSpec, role authzv1.Role) time.Duration {
	if identity.IsPerson(role) {
		return PersonLife
	}
	if spec.GetCertificateLife() == nil {
		return DefaultLife
	}
	return max(spec.GetCertificateLife().AsDuration(), ShortestLife)
}
