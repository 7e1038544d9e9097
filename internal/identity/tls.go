package identity

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

// newTLS is the one constructor of TLS configurations in the house. Verification is always ours, in verify: the standard
// one would check a host name, which says nothing here, and would look at the machine's clock instead of env's.
func newTLS(now func() time.Time, protos []string, verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Time:                   now,
		NextProtos:             slices.Clone(protos),
		InsecureSkipVerify:     true, //nolint:gosec // VerifyConnection takes its place, and is stricter
		VerifyConnection:       verify,
		SessionTicketsDisabled: true, // a resumed session would skip the deny list
	}
}

// ServerTLS is the server's side. A client may come without a certificate (internal/rpc decides what it may call); one
// that it sends is verified: chain, one URI, our cluster, deny list, time. One that ran out within the grace is let in and
// marked by Peer. The protos are in the server's order of preference.
func (k *Keeper) ServerTLS(protos ...string) *tls.Config {
	cfg := newTLS(k.env.Now, protos, func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return nil
		}
		_, err := k.VerifyClient(cs.PeerCertificates)
		return err
	})
	cfg.ClientAuth = tls.RequestClientCert
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &k.leaf.Load().cert, nil }
	return cfg
}

// ClientTLS is the client's side: the server must be of our cluster and of one of the roles; its host name is not looked
// at. The own leaf is presented even when it has run out.
func (k *Keeper) ClientTLS(proto string, roles ...authzv1.Role) *tls.Config {
	cfg := newTLS(k.env.Now, []string{proto}, func(cs tls.ConnectionState) error {
		_, err := k.VerifyServer(cs.PeerCertificates, roles...)
		return err
	})
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &k.leaf.Load().cert, nil }
	return cfg
}

// VerifyClient verifies a client's chain, leaf first, against what is in force now.
func (k *Keeper) VerifyClient(chain []*x509.Certificate) (Peer, error) {
	return k.check(x509.ExtKeyUsageClientAuth, nil).peer(chain)
}

// VerifyServer verifies a server's chain, leaf first. A server's leaf that ran out is accepted, within the grace, from a
// ca (somebody has to renew ours) and between store and ca, so that a cluster that was off for long comes back.
func (k *Keeper) VerifyServer(chain []*x509.Certificate, roles ...authzv1.Role) (Peer, error) {
	p, err := k.check(x509.ExtKeyUsageServerAuth, roles).peer(chain)
	if err != nil {
		return Peer{}, err
	}
	between := p.ID.Role == authzv1.Role_ROLE_STORE && (k.id.Role == authzv1.Role_ROLE_STORE || k.id.Role == authzv1.Role_ROLE_CA)
	if p.Expired && p.ID.Role != authzv1.Role_ROLE_CA && !between {
		return Peer{}, errs.New(errs.Denied, "the certificate of %s ran out at %s, and it is %s on this machine's clock; it must renew it first, or the clock is wrong",
			p.ID, stamp(p.NotAfter), stamp(k.env.Now()))
	}
	return p, nil
}

func (k *Keeper) check(usage x509.ExtKeyUsage, roles []authzv1.Role) check {
	t := k.trust.Load()
	return check{
		roots: t.roots, cluster: k.id.Cluster, denied: t.denied, proven: t.proven,
		now: k.env.Now(), grace: time.Duration(k.grace.Load()), usage: usage, roles: roles,
	}
}

// PinnedTLS is the side of a client that has no certificate yet and knows one root, by the digest in its token. The
// server may be of any cluster below that root, and must be of one of the roles; a leaf that ran out is refused.
func PinnedTLS(env run.Env, root *x509.Certificate, proto string, roles ...authzv1.Role) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return newTLS(env.Now, []string{proto}, func(cs tls.ConnectionState) error {
		c := check{roots: pool, now: env.Now(), usage: x509.ExtKeyUsageServerAuth, roles: roles}
		_, err := c.peer(cs.PeerCertificates)
		return err
	})
}

// BlindTLS verifies nobody. It is for one call: a joiner fetches the root, and believes it only if it has the digest of
// its token. Nothing else may be sent or believed on such a connection.
func BlindTLS(env run.Env, proto string) *tls.Config {
	return newTLS(env.Now, []string{proto}, nil)
}
