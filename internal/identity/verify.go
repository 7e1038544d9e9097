package identity

import (
	"crypto/x509"
	"slices"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// Peer is the other side of a connection, as its certificate says.
type Peer struct {
	// ID is who it is.
	ID ID
	// Serial is its certificate's number, lower-case hex.
	Serial string
	// Expired says that the certificate had run out when the connection was made, and was within the grace. Such a peer
	// may do next to nothing: see internal/authz.
	Expired bool
	// NotBefore is when the certificate's validity began.
	NotBefore time.Time
	// NotAfter is when the certificate runs out, or has.
	NotAfter time.Time
}

// check is what one handshake is measured against.
type check struct {
	roots   *x509.CertPool
	cluster string // empty: any, for a joiner that does not know its cluster yet
	denied  denyList
	now     time.Time
	grace   time.Duration
	usage   x509.ExtKeyUsage
	roles   []authzv1.Role // none: any
	proven  *proven        // nil: each chain is traced anew
}

// peer verifies the chain that the other side has sent, leaf first. The order of the checks is the order in which their
// words help: a certificate of another cluster is told as such and not as "unknown authority".
func (c check) peer(chain []*x509.Certificate) (Peer, error) {
	if len(chain) == 0 {
		return Peer{}, errs.New(errs.Denied, "the peer has no certificate")
	}
	leaf := chain[0]
	id, err := OfCertificate(leaf)
	if err != nil {
		return Peer{}, err
	}
	p := Peer{ID: id, Serial: Serial(leaf), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	if c.cluster != "" && id.Cluster != c.cluster {
		return Peer{}, errs.New(errs.Denied, "%s is of cluster %s, this is cluster %s", id, id.Cluster, c.cluster)
	}
	at, err := c.when(leaf, &p)
	if err != nil {
		return Peer{}, err
	}
	if err := c.chain(chain, at); err != nil {
		return Peer{}, errs.New(errs.Denied, "the certificate of %s is not from this cluster's CA: %w", id, err)
	}
	if c.denied.denies(id, leaf) {
		return Peer{}, errs.New(errs.Denied, "%s (certificate %s) has been removed from the cluster", id, p.Serial)
	}
	if len(c.roles) > 0 && !slices.Contains(c.roles, id.Role) {
		return Peer{}, errs.New(errs.Denied, "the peer is %s, wanted %s", id, roleNames(c.roles))
	}
	return p, nil
}

// when is the time as of which the chain counts: now, or for a leaf that ran out within the grace its last moment, because
// its issuer may have run out with it.
func (c check) when(leaf *x509.Certificate, p *Peer) (time.Time, error) {
	switch {
	case c.now.Before(leaf.NotBefore):
		return c.now, errs.New(errs.Denied, "the certificate of %s is valid from %s, and it is %s on this machine's clock; set the clocks right",
			p.ID, stamp(leaf.NotBefore), stamp(c.now))
	case !c.now.After(leaf.NotAfter):
		return c.now, nil
	case c.now.Sub(leaf.NotAfter) > c.grace:
		return c.now, errs.New(errs.Denied, "the certificate of %s ran out at %s, and it is %s on this machine's clock; set the clock right, or join again",
			p.ID, stamp(leaf.NotAfter), stamp(c.now))
	}
	p.Expired = true
	return leaf.NotAfter, nil
}

func (c check) chain(chain []*x509.Certificate, at time.Time) error {
	proof := proofOf(c.usage, chain)
	if c.proven.holds(proof, at) {
		return nil
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	whole, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         c.roots,
		Intermediates: between,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{c.usage},
	})
	if err != nil {
		return err
	}
	c.proven.note(proof, whole[0])
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func roleNames(roles []authzv1.Role) string {
	var s string
	for i, r := range roles {
		if i > 0 {
			s += " or "
		}
		s += RoleName(r)
	}
	return s
}
