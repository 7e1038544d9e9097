package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

// DefaultGrace is how long a leaf that ran out still serves to renew it.
const DefaultGrace = 90 * 24 * time.Hour

// Keeper has one process's certificate and trust, current at every handshake. It is safe for concurrent use.
type Keeper struct {
	env   run.Env
	dir   string
	id    ID // never changes: a renewed leaf has the same
	leaf  atomic.Pointer[leaf]
	trust atomic.Pointer[trust]
	grace atomic.Int64 // a time.Duration
}

// leaf is one certificate with its key. It is never changed, only replaced.
type leaf struct {
	cert     tls.Certificate
	x509     *x509.Certificate
	replaced chan struct{} // closed when the next one is in force
}

// trust is whom we believe. It is never changed, only replaced.
type trust struct {
	bundle  []byte
	roots   *x509.CertPool
	denied  denyList
	proven  *proven
	changed chan struct{} // closed when another one takes its place
}

// Load reads the identity folder dir: CertFile, KeyFile and BundleFile. Errors: NotFound (this machine has not joined),
// Invalid (with the file's name; also for a key that others may read).
func Load(env run.Env, dir string) (*Keeper, error) {
	k := &Keeper{env: env, dir: dir}
	k.grace.Store(int64(DefaultGrace))
	chain, err := k.read(CertFile, env.Files.Read)
	if err != nil {
		return nil, err
	}
	bundle, err := k.read(BundleFile, env.Files.Read)
	if err != nil {
		return nil, err
	}
	key, err := k.loadKey(chain)
	if err != nil {
		return nil, err
	}
	l, err := newLeaf(chain, key)
	if err != nil {
		return nil, errs.New(errs.Invalid, "identity in %s: %w", dir, err)
	}
	if k.id, err = OfCertificate(l.x509); err != nil {
		return nil, errs.New(errs.Invalid, "identity in %s: %w", dir, err)
	}
	t, err := newTrust(bundle, k.readDenied())
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s: %w", path.Join(dir, BundleFile), err)
	}
	k.leaf.Store(l)
	k.trust.Store(t)
	return k, nil
}

func (k *Keeper) read(name string, read func(name string) ([]byte, error)) ([]byte, error) {
	name = path.Join(k.dir, name)
	data, err := read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "this machine has no certificate in %s; run `shoal init` or `shoal join` first: %w", k.dir, err)
	}
	if err != nil && !errs.Is(err, errs.Invalid) {
		return nil, errs.New(errs.Unavailable, "read %s: %w", name, err)
	}
	return data, err
}

func (k *Keeper) readSecret(name string) ([]byte, error) {
	return k.read(name, func(name string) ([]byte, error) { return ReadSecret(k.env.Files, name) })
}

// loadKey finds the key of the certificate. After a power cut between the two writes of a renewal it is still under
// NextKeyFile; then it takes its place now.
func (k *Keeper) loadKey(chain []byte) (*ecdsa.PrivateKey, error) {
	current, err := k.readSecret(KeyFile)
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return nil, err
	}
	if key, keyErr := DecodeKey(current); err == nil && keyErr == nil {
		if _, err := newLeaf(chain, key); err == nil {
			return key, nil
		}
	}
	next, nextErr := k.readSecret(NextKeyFile)
	if nextErr != nil {
		if err != nil {
			return nil, err
		}
		if errs.KindOf(nextErr) != errs.NotFound {
			return nil, nextErr
		}
		return nil, errs.New(errs.Invalid, "%s is not the key of the certificate beside it; join again", path.Join(k.dir, KeyFile))
	}
	key, err := DecodeKey(next)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s: %w", path.Join(k.dir, NextKeyFile), err)
	}
	if _, err := newLeaf(chain, key); err != nil {
		return nil, errs.New(errs.Invalid, "identity in %s: %w; join again", k.dir, err)
	}
	if err := k.env.Files.Write(path.Join(k.dir, KeyFile), next, keyMode); err != nil {
		return nil, err
	}
	return key, k.env.Files.Remove(path.Join(k.dir, NextKeyFile))
}

// newLeaf pairs a chain in PEM with its key.
func newLeaf(chain []byte, key *ecdsa.PrivateKey) (*leaf, error) {
	certs, err := DecodeCertificates(chain)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, errs.New(errs.Invalid, "the certificate is for another key")
	}
	l := &leaf{x509: certs[0], cert: tls.Certificate{PrivateKey: key, Leaf: certs[0]}, replaced: make(chan struct{})}
	for _, c := range certs {
		l.cert.Certificate = append(l.cert.Certificate, c.Raw)
	}
	return l, nil
}

func newTrust(bundle []byte, denied []string) (*trust, error) {
	roots, err := DecodeCertificates(bundle)
	if err != nil {
		return nil, err
	}
	t := &trust{bundle: bundle, roots: x509.NewCertPool(), denied: newDenyList(denied), proven: newProven(), changed: make(chan struct{})}
	for _, c := range roots {
		t.roots.AddCert(c)
	}
	return t, nil
}

// ID is who this process is.
func (k *Keeper) ID() ID { return k.id }

// Certificate is the current leaf.
func (k *Keeper) Certificate() *x509.Certificate { return k.leaf.Load().x509 }

// Expired says that this process's own leaf has run out, by its own clock.
func (k *Keeper) Expired() bool { return k.env.Now().After(k.Certificate().NotAfter) }

// Replaced is closed when the leaf in force now has been renewed: connections that were made with it may be made anew.
func (k *Keeper) Replaced() <-chan struct{} { return k.leaf.Load().replaced }

// Bundle is the trust bundle in force, in PEM.
func (k *Keeper) Bundle() []byte { return bytes.Clone(k.trust.Load().bundle) }

// SetGrace says how long a leaf that ran out is let through, marked as expired.
func (k *Keeper) SetGrace(d time.Duration) { k.grace.Store(int64(max(d, 0))) }

// Trust is closed at the next change of the bundle or the deny list.
func (k *Keeper) Trust() <-chan struct{} { return k.trust.Load().changed }

// Denied says that a member ("role/name") or a serial is on the deny list.
func (k *Keeper) Denied(entry string) bool { return k.trust.Load().denied.entries[entry] }

// SetTrust puts a bundle (empty: the present one stays) and a deny list into force and on disk. It closes no connection
// itself; Trust tells those who do. A bundle that cannot be read is told in the log, and the old one stays.
func (k *Keeper) SetTrust(bundle []byte, denied []string) {
	k.update(func(old *trust) ([]byte, []string) {
		if len(bundle) == 0 {
			return old.bundle, denied
		}
		return bundle, denied
	})
}

// setBundle leaves the deny list as it is.
func (k *Keeper) setBundle(bundle []byte) {
	k.update(func(old *trust) ([]byte, []string) { return bundle, old.list() })
}

// update replaces the trust by what f makes of the present one. In force first, then on disk: a disk that fails must not
// keep a removed peer in.
func (k *Keeper) update(f func(old *trust) (bundle []byte, denied []string)) {
	for {
		old := k.trust.Load()
		bundle, denied := f(old)
		denied = slices.Compact(slices.Sorted(slices.Values(denied)))
		if bytes.Equal(bundle, old.bundle) && slices.Equal(denied, old.list()) {
			return
		}
		next, err := newTrust(bytes.Clone(bundle), denied)
		if err != nil {
			k.env.Log.Error("trust bundle is unreadable, the old one stays in force", "error", err)
			return
		}
		if !k.trust.CompareAndSwap(old, next) {
			continue // somebody else was first: again, from what is there now
		}
		close(old.changed)
		if err := k.persist(); err != nil {
			k.env.Log.Error("trust could not be written to disk", "dir", k.dir, "error", err)
		}
		return
	}
}

// persist writes what is in force, and again if that has changed meanwhile: the last writer leaves the latest behind.
func (k *Keeper) persist() error {
	for {
		t := k.trust.Load()
		if err := k.env.Files.Write(path.Join(k.dir, BundleFile), t.bundle, certMode); err != nil {
			return err
		}
		if err := k.env.Files.Write(path.Join(k.dir, deniedFile), []byte(strings.Join(t.list(), "\n")), certMode); err != nil {
			return err
		}
		if k.trust.Load() == t {
			return nil
		}
	}
}

// readDenied is best effort: the list comes again with the first answer of a server.
func (k *Keeper) readDenied() []string {
	data, err := k.env.Files.Read(path.Join(k.dir, deniedFile))
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}

func (t *trust) list() []string {
	list := make([]string, 0, len(t.denied.entries))
	for d := range t.denied.entries {
		list = append(list, d)
	}
	slices.Sort(list)
	return list
}
