package identity

import (
	"bytes"
	"slices"

	"github.com/shoalproject/shoal/internal/errs"
)

// Reload takes certificate, key and bundle from disk again, and reports whether the certificate is another one. What is of
// no use changes nothing: the files must be whole, fit each other, and be this process's own. The deny list stays: it
// comes from the cluster.
func (k *Keeper) Reload() (renewed bool, err error) {
	chain, err := k.read(CertFile, k.env.Files.Read)
	if err != nil {
		return false, err
	}
	bundle, err := k.read(BundleFile, k.env.Files.Read)
	if err != nil {
		return false, err
	}
	key, err := k.loadKey(chain)
	if err != nil {
		return false, err
	}
	next, err := newLeaf(chain, key)
	if err != nil {
		return false, errs.New(errs.Invalid, "identity in %s: %w", k.dir, err)
	}
	old := k.leaf.Load()
	renewed = !slices.EqualFunc(old.cert.Certificate, next.cert.Certificate, bytes.Equal)
	if renewed { // one that is in force already may have run out, which is no fault of the files
		if next, err = k.accept(chain, bundle, key); err != nil {
			return false, errs.New(errs.Invalid, "the identity in %s is of no use: %w", k.dir, err)
		}
	}
	if !bytes.Equal(bundle, k.trust.Load().bundle) {
		k.setBundle(bundle)
	}
	if !renewed {
		return false, nil
	}
	if k.leaf.CompareAndSwap(old, next) { // else a renewal was faster, and has a newer one
		close(old.replaced)
	}
	return true, nil
}
