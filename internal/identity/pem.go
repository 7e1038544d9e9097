package identity

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"path"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

// Names of the files in an identity folder.
const (
	CertFile    = "cert.pem"     // the leaf, then its issuer
	KeyFile     = "key.pem"      // the leaf's private key, PKCS #8
	NextKeyFile = "key.pem.next" // a key for which a certificate has been asked for; it takes KeyFile's place with it
	BundleFile  = "bundle.pem"   // the roots, the active one first
	deniedFile  = "denied"       // the deny list as it was last told, one entry a line
)

const (
	certType = "CERTIFICATE"
	keyType  = "PRIVATE KEY"
	keyMode  = fs.FileMode(0o600)
	certMode = fs.FileMode(0o644)
)

// NewKey makes a leaf's private key (P-256).
func NewKey(r io.Reader) (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), r)
}

// CSR makes a PKCS #10 request for the key, in DER. It has no names: a CA takes nothing from it but the public key.
func CSR(r io.Reader, key crypto.Signer) ([]byte, error) {
	return x509.CreateCertificateRequest(r, &x509.CertificateRequest{}, key)
}

// EncodeKey is a private key of any kind as PKCS #8 in PEM.
func EncodeKey(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der}), nil
}

// DecodeKey reads what EncodeKey has made of an ECDSA key.
func DecodeKey(data []byte) (*ecdsa.PrivateKey, error) {
	key, err := decodeKey(data)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errs.New(errs.Invalid, "the private key is a %T, wanted ECDSA", key)
	}
	return ec, nil
}

func decodeKey(data []byte) (any, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != keyType {
		return nil, errs.New(errs.Invalid, "no %s block in PEM", keyType)
	}
	return x509.ParsePKCS8PrivateKey(block.Bytes)
}

// EncodeCertificates writes certificates as PEM, in their order.
func EncodeCertificates(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: certType, Bytes: c.Raw})...)
	}
	return out
}

// DecodeCertificates reads one or more certificates in PEM.
func DecodeCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != certType {
			return nil, errs.New(errs.Invalid, "a %s block in PEM where only certificates belong", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errs.New(errs.Invalid, "certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errs.New(errs.Invalid, "no certificate in PEM")
	}
	return certs, nil
}

// Write makes an identity folder of what a CA has issued for the key: all of it durable before it returns.
//
// Step 1: the bundle. Step 2: the certificate; if the power goes now, Load finds that the key is still under NextKeyFile.
// Step 3: the key. Step 4: the next key goes, because it is the current one.
func Write(files run.Files, dir string, chain, bundle []byte, key *ecdsa.PrivateKey) error {
	keyPEM, err := EncodeKey(key)
	if err != nil {
		return err
	}
	if err := files.Write(path.Join(dir, BundleFile), bundle, certMode); err != nil {
		return err
	}
	if err := files.Write(path.Join(dir, CertFile), chain, certMode); err != nil {
		return err
	}
	if err := files.Write(path.Join(dir, KeyFile), keyPEM, keyMode); err != nil {
		return err
	}
	return files.Remove(path.Join(dir, NextKeyFile))
}

// ReadSecret reads a file that has a key, and refuses one that others on the machine may read. Errors: what Files.Read
// returns, and Invalid, which says how to mend the mode.
func ReadSecret(files run.Files, name string) ([]byte, error) {
	info, err := files.Stat(name)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&^keyMode != 0 {
		return nil, errs.New(errs.Invalid,
			"%s has a key and the mode %04o, so that others than its owner may use it: run `chmod 0600 %s`, and if anybody may have read it, `shoal leave` and join again",
			name, mode, name)
	}
	return files.Read(name)
}

// NextKey is the key for which the next certificate is asked for: on disk (0600) before it returns. An earlier one is
// taken again, because a CA may have certified it in a call whose answer was lost.
func NextKey(files run.Files, dir string, r io.Reader) (*ecdsa.PrivateKey, error) {
	name := path.Join(dir, NextKeyFile)
	data, err := ReadSecret(files, name)
	if err == nil {
		if key, err := DecodeKey(data); err == nil {
			return key, nil
		} // half a key is of no use to anybody
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := NewKey(r)
	if err != nil {
		return nil, err
	}
	if data, err = EncodeKey(key); err != nil {
		return nil, err
	}
	return key, files.Write(name, data, keyMode)
}

// WrapKey is the X25519 key to which keysets are wrapped for a ca or store: PKCS #8 in PEM, 0600, made when absent. It
// does not change with the leaf.
func WrapKey(files run.Files, name string, r io.Reader) (*ecdh.PrivateKey, error) {
	data, err := ReadSecret(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return newWrapKey(files, name, r)
	}
	if err != nil {
		return nil, err
	}
	key, err := decodeKey(data)
	if err != nil {
		return nil, errs.New(errs.Invalid, "wrap key %s: %w", name, err)
	}
	wrap, ok := key.(*ecdh.PrivateKey)
	if !ok || wrap.Curve() != ecdh.X25519() {
		return nil, errs.New(errs.Invalid, "wrap key %s is a %T, wanted X25519", name, key)
	}
	return wrap, nil
}

func newWrapKey(files run.Files, name string, r io.Reader) (*ecdh.PrivateKey, error) {
	key, err := ecdh.X25519().GenerateKey(r)
	if err != nil {
		return nil, err
	}
	data, err := EncodeKey(key)
	if err != nil {
		return nil, err
	}
	return key, files.Write(name, data, keyMode)
}

// CheckChain says whether a chain in PEM is what was asked for: for the key, and for the identity alone.
func CheckChain(chain []byte, key *ecdsa.PrivateKey, want ID) error {
	l, err := newLeaf(chain, key)
	if err != nil {
		return err
	}
	id, err := OfCertificate(l.x509)
	if err != nil {
		return err
	}
	if id != want {
		return errs.New(errs.Denied, "it is for %s, not for %s", id.URI(), want.URI())
	}
	return nil
}
