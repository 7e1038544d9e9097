// Package keyset is a key that all processes of one role of a cluster share, and nobody else has.
//
// The CAs' seals the root's private key in the store, and the join tokens are derived from it; the stores' seals the data of
// secrets. The store holds it only wrapped to each such process's wrap key. Everything is bound to its purpose and its cluster, so that nothing sealed for one can be
// opened as the other. It must never leave this package in clear, and never be printed. A Keyset does not change and is safe
// for concurrent use.
package keyset

import (
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"io"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// format is that of SealedBytes.
const format = 1

// size of the key in bytes.
const size = 32

// Keyset is the key with its id.
type Keyset struct {
	cluster string
	id      string
	key     [size]byte
}

// New makes one for a cluster.
func New(r *run.Rand, cluster string) *Keyset {
	k := &Keyset{cluster: cluster, id: identity.NewID(r)}
	_, _ = r.Read(k.key[:]) // a *run.Rand never fails
	return k
}

// ID names the key.
func (k *Keyset) ID() string { return k.id }

// String keeps the key out of anything that prints a Keyset.
func (k *Keyset) String() string { return "keyset " + k.id }

// GoString does the same for %#v.
func (k *Keyset) GoString() string { return k.String() }

// Wrap encrypts the key to one process (HPKE, RFC 9180, base mode: X25519, HKDF-SHA256, ChaCha20-Poly1305). Member is
// "role/machine", public its X25519 wrap key.
func (k *Keyset) Wrap(member string, public []byte) (*typesv1.WrappedKey, error) {
	raw, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, errs.New(errs.Invalid, "wrap key of %s: %w", member, err)
	}
	to, err := hpke.NewDHKEMPublicKey(raw)
	if err != nil {
		return nil, errs.New(errs.Invalid, "wrap key of %s: %w", member, err)
	}
	data, err := hpke.Seal(to, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), wrapInfo(k.cluster, member, k.id), k.key[:])
	if err != nil {
		return nil, errs.New(errs.Invalid, "wrap the keyset key to %s: %w", member, err)
	}
	return &typesv1.WrappedKey{MemberId: member, KeyId: k.id, Data: data, To: public}, nil
}

// Unwrap opens what Wrap has made for this process.
func Unwrap(cluster string, w *typesv1.WrappedKey, private *ecdh.PrivateKey) (*Keyset, error) {
	own, err := hpke.NewDHKEMPrivateKey(private)
	if err != nil {
		return nil, errs.New(errs.Invalid, "wrap key: %w", err)
	}
	key, err := hpke.Open(own, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), wrapInfo(cluster, w.GetMemberId(), w.GetKeyId()), w.GetData())
	if err != nil || len(key) != size {
		return nil, errs.New(errs.Invalid, "keyset key %s is not wrapped to this process's wrap key", w.GetKeyId())
	}
	k := &Keyset{cluster: cluster, id: w.GetKeyId()}
	copy(k.key[:], key)
	return k, nil
}

func wrapInfo(cluster, member, id string) []byte {
	return []byte("shoal keyset wrap 1\x00" + cluster + "\x00" + member + "\x00" + id)
}

// Seal encrypts data for one purpose.
func (k *Keyset) Seal(r *run.Rand, purpose string, data []byte) (*typesv1.SealedBytes, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	_, _ = io.ReadFull(r, nonce) // a *run.Rand never fails
	return &typesv1.SealedBytes{Format: format, KeyId: k.id, Data: aead.Seal(nonce, nonce, data, k.bind(purpose))}, nil
}

// Open decrypts what Seal has made for the same purpose.
func (k *Keyset) Open(purpose string, sealed *typesv1.SealedBytes) ([]byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, err
	}
	data := sealed.GetData()
	switch {
	case sealed.GetFormat() != format:
		return nil, errs.New(errs.Invalid, "open %s: format %d is not known to this version", purpose, sealed.GetFormat())
	case sealed.GetKeyId() != k.id:
		return nil, errs.New(errs.Precondition, "open %s: it is sealed with key %s, and this process has key %s", purpose, sealed.GetKeyId(), k.id)
	case len(data) < aead.NonceSize():
		return nil, errs.New(errs.Invalid, "open %s: it is cut short", purpose)
	}
	data, err = aead.Open(nil, data[:aead.NonceSize()], data[aead.NonceSize():], k.bind(purpose))
	if err != nil {
		return nil, errs.New(errs.Invalid, "open %s: it was changed, or sealed for something else", purpose)
	}
	return data, nil
}

func (k *Keyset) aead() (cipher.AEAD, error) {
	key, err := k.Derive("seal", chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	return chacha20poly1305.New(key)
}

func (k *Keyset) bind(purpose string) []byte {
	return []byte("shoal sealed 1\x00" + k.cluster + "\x00" + k.id + "\x00" + purpose)
}

// Derive makes a key of n bytes for one purpose (HKDF-SHA256, RFC 5869).
func (k *Keyset) Derive(purpose string, n int) ([]byte, error) {
	out, err := hkdf.Key(sha256.New, k.key[:], []byte(k.cluster), "shoal keyset 1\x00"+purpose, n)
	if err != nil {
		return nil, errs.New(errs.Internal, "derive a key for %s: %w", purpose, err)
	}
	return out, nil
}
