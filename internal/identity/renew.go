package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

// Renewal happens at a random point of this part of a leaf's life: early, so that more than half of it is left for an
// outage; random, so that machines which joined together do not come together.
const (
	renewFrom = 0.30
	renewSpan = 0.15
	// renewLook bounds one wait: a clock that was set meanwhile is noticed within it.
	renewLook = 10 * time.Minute
	retryLow  = time.Second
	retryHigh = time.Minute
)

// Renew asks a CA for the next certificate: the request in DER, the answer's chain (leaf, issuer) and bundle in PEM.
type Renew func(ctx context.Context, csr []byte) (chain, bundle []byte, err error)

// Run renews the leaf for ever, at a random point in 30 to 45 % of its life, at once if that has passed. A failure is
// tried again after 1 s, then twice as long, up to 1 min.
func (k *Keeper) Run(ctx context.Context, renew Renew) error {
	for {
		if err := k.waitDue(ctx); err != nil {
			return err
		}
		if err := k.renewUntilDone(ctx, renew); err != nil {
			return err
		}
	}
}

// waitDue returns when the present leaf is due.
func (k *Keeper) waitDue(ctx context.Context) error {
	cert := k.Certificate()
	life := cert.NotAfter.Sub(cert.NotBefore)
	due := cert.NotBefore.Add(time.Duration((renewFrom + renewSpan*k.env.Rand.Float64()) * float64(life)))
	for {
		left := due.Sub(k.env.Now())
		if left <= 0 {
			return ctx.Err()
		}
		if err := run.Sleep(ctx, min(left, renewLook)); err != nil {
			return err
		}
	}
}

func (k *Keeper) renewUntilDone(ctx context.Context, renew Renew) error {
	for delay := retryLow; ; delay = min(2*delay, retryHigh) {
		err := k.RenewOnce(ctx, renew)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if k.Expired() {
			k.env.Log.Error("certificate has run out and could not be renewed, will retry",
				"error", err, "not_after", k.Certificate().NotAfter, "clock", k.env.Now())
		} else {
			k.env.Log.Warn("certificate could not be renewed, will retry", "error", err, "not_after", k.Certificate().NotAfter)
		}
		if err := run.Sleep(ctx, k.env.Rand.Jitter(delay, 0.2)); err != nil {
			return err
		}
	}
}

// RenewOnce takes one renewal: a new key on disk, the call, the new certificate on disk, and then in force.
func (k *Keeper) RenewOnce(ctx context.Context, renew Renew) error {
	key, err := NextKey(k.env.Files, k.dir, k.env.Rand)
	if err != nil {
		return err
	}
	csr, err := CSR(k.env.Rand, key)
	if err != nil {
		return err
	}
	chain, bundle, err := renew(ctx, csr)
	if err != nil {
		return err
	}
	if len(bundle) == 0 {
		bundle = k.Bundle()
	}
	next, err := k.accept(chain, bundle, key)
	if err != nil {
		return errs.New(errs.Invalid, "the CA's answer is of no use: %w", err)
	}
	if err := Write(k.env.Files, k.dir, chain, bundle, key); err != nil {
		return err
	}
	old := k.leaf.Swap(next)
	k.setBundle(bundle)
	close(old.replaced)
	k.env.Log.Info("certificate renewed", "id", k.id.URI(), "serial", Serial(next.x509), "not_after", next.x509.NotAfter)
	return nil
}

// accept looks at an answer as a peer would, before the old certificate is given up for it.
func (k *Keeper) accept(chain, bundle []byte, key *ecdsa.PrivateKey) (*leaf, error) {
	next, err := newLeaf(chain, key)
	if err != nil {
		return nil, err
	}
	t, err := newTrust(bundle, nil)
	if err != nil {
		return nil, err
	}
	certs, err := DecodeCertificates(chain)
	if err != nil {
		return nil, err
	}
	c := check{roots: t.roots, cluster: k.id.Cluster, now: k.env.Now(), usage: x509.ExtKeyUsageClientAuth}
	p, err := c.peer(certs)
	if err != nil {
		return nil, err
	}
	if p.ID != k.id {
		return nil, errs.New(errs.Denied, "it is for %s, not for %s", p.ID, k.id)
	}
	return next, nil
}
