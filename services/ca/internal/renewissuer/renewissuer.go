// Package renewissuer keeps this process's issuing certificate: it loads it, makes it when there is none, and replaces it at
// two thirds of its life, each time with a new key, signed by the root whose key the keyset opens.
//
// It owns the files cert.pem and key.pem in the issuing folder. The root's key is opened for one signature and forgotten; it
// must never reach a file or a log. A Keeper has one caller.
package renewissuer

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/keyset"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/services/ca/internal/issue"
	"github.com/shoalproject/shoal/services/ca/internal/root"
)

const (
	certFile = "cert.pem"
	keyFile  = "key.pem"
	nextFile = "key.pem.next"

	retry = 5 * time.Second
	// look bounds one wait, so that a clock that was set meanwhile is noticed.
	look = 10 * time.Minute
)

// View is the replica of the cluster.
type View interface {
	Snapshot() *state.Snapshot
	Changed() <-chan struct{}
}

// Health is told whether there is an issuing certificate.
type Health interface {
	Set(part string, ok bool, why string)
}

// Keeper keeps the issuing certificate.
type Keeper struct {
	env    run.Env
	dir    string
	self   identity.ID
	issuer *issue.Issuer
	keys   *keyset.Holder
	health Health
}

// part is the name in the process's health.
const part = "issuing"

// New makes a keeper of the issuing certificate in dir.
func New(env run.Env, dir string, self identity.ID, issuer *issue.Issuer, keys *keyset.Holder, health Health) *Keeper {
	health.Set(part, false, "has no issuing certificate yet")
	return &Keeper{env: env, dir: dir, self: self, issuer: issuer, keys: keys, health: health}
}

// Load puts the certificate on disk into force, if there is one. Whatever is wrong with it is logged and not an error: a new
// one can be made. It must be below a root of the bundle.
func (k *Keeper) Load(bundle []byte) {
	s, err := Read(k.env.Files, k.dir)
	if err == nil {
		err = below(s, bundle)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		k.env.Log.Warn("issuing certificate is of no use, will make another", "dir", k.dir, "error", err)
		return
	}
	k.use(s)
}

func (k *Keeper) use(s *root.Signer) {
	k.issuer.Use(s)
	k.health.Set(part, true, "")
}

// Run makes and replaces the certificate until ctx ends.
func (k *Keeper) Run(ctx context.Context, view View) error {
	for {
		wait := k.due()
		if wait <= 0 {
			wait = k.step(ctx, view)
		}
		timer := time.NewTimer(min(wait, look))
		select {
		case <-timer.C:
		case <-k.woken(view):
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// woken is what may let an attempt succeed before the next look: the keyset, while there is none; then the store.
func (k *Keeper) woken(view View) <-chan struct{} {
	if k.issuer.Issuing() != nil {
		return nil
	}
	if k.keys.Get() == nil {
		return k.keys.Got()
	}
	return view.Changed()
}

// due is how long the certificate in force is not yet to be replaced; 0 or less: now.
func (k *Keeper) due() time.Duration {
	s := k.issuer.Issuing()
	if s == nil {
		return 0
	}
	cert := s.Certificate()
	return cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) * 2 / 3).Sub(k.env.Now())
}

// step tries once and says when to look again.
func (k *Keeper) step(ctx context.Context, view View) time.Duration {
	err := k.replace(ctx, view.Snapshot())
	if err == nil {
		return 0
	}
	old := k.issuer.Issuing()
	if old == nil {
		k.health.Set(part, false, err.Error())
		return retry
	}
	// Ten days are left of it: no hurry, and no flood of warnings.
	k.env.Log.Warn("issuing certificate not replaced, will retry", "error", err, "not_after", old.Certificate().NotAfter)
	return look
}

func (k *Keeper) replace(ctx context.Context, snap *state.Snapshot) error {
	keys := k.keys.Get()
	if keys == nil {
		return errs.New(errs.Unavailable, "waits for the keyset from another CA")
	}
	if snap.Cluster() == nil {
		return errs.New(errs.Unavailable, "waits for the store")
	}
	top, err := issue.Authority(keys, snap.Cluster().GetAuthority())
	if err != nil {
		return err
	}
	if top == nil {
		return errs.New(errs.Precondition, "the root key was taken out of the cluster: sign this CA's issuing certificate where the root key is")
	}
	next, err := top.Issuing(k.env.Rand, k.self.Name, k.env.Now())
	if err != nil {
		return err
	}
	if err := Write(k.env.Files, k.dir, next); err != nil {
		return errs.New(errs.Unavailable, "write the issuing certificate: %w", err)
	}
	k.issuer.AuditIssued(ctx, "issuing", issue.Issued{ID: k.self, Certificate: next.Certificate()})
	k.use(next)
	return nil
}

// Write puts an issuing certificate and its key (0600) on disk. Step 1: the key under another name. Step 2: the certificate.
// Step 3: the key in its place. If the power goes before step 3, Read finds the key that fits.
func Write(files run.Files, dir string, s *root.Signer) error {
	key, err := s.KeyPEM()
	if err != nil {
		return err
	}
	if err := files.Write(path.Join(dir, nextFile), key, 0o600); err != nil {
		return err
	}
	if err := files.Write(path.Join(dir, certFile), s.PEM(), 0o644); err != nil {
		return err
	}
	if err := files.Write(path.Join(dir, keyFile), key, 0o600); err != nil {
		return err
	}
	return files.Remove(path.Join(dir, nextFile))
}

// Read finds what Write has left, also half-way. An absent certificate is an error that wraps fs.ErrNotExist.
func Read(files run.Files, dir string) (*root.Signer, error) {
	cert, err := files.Read(path.Join(dir, certFile))
	if err != nil {
		return nil, err
	}
	var faults []error
	for _, name := range []string{keyFile, nextFile} {
		key, err := identity.ReadSecret(files, path.Join(dir, name))
		if err == nil {
			var s *root.Signer
			if s, err = root.Open(cert, key); err == nil {
				return s, nil
			}
		}
		faults = append(faults, err)
	}
	return nil, errs.New(errs.Invalid, "no key fits the issuing certificate: %w", faults[0])
}

// below checks that the certificate was signed by a root that is believed.
func below(s *root.Signer, bundle []byte) error {
	roots, err := identity.DecodeCertificates(bundle)
	if err != nil {
		return err
	}
	for _, r := range roots {
		if bytes.Equal(r.RawSubject, s.Certificate().RawIssuer) && s.Certificate().CheckSignatureFrom(r) == nil {
			return nil
		}
	}
	return errs.New(errs.Invalid, "it is below a root that is not believed any more")
}
