package issue_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"testing"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/ca/internal/issue"
)

func keyHash(tb testing.TB, key *ecdsa.PublicKey) []byte {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return sum[:]
}

func newKey(tb testing.TB, r *run.Rand) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := identity.NewKey(r)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func TestAProofIsTheLastKeysSignatureOverTheRequest(t *testing.T) {
	r := run.NewRand(1)
	for range 50 { // the recovered point has two possible signs, and each must be found
		last, next, other := newKey(t, r), newKey(t, r), newKey(t, r)
		csr := []byte("a request")
		sum := sha256.Sum256(csr)
		proof, err := ecdsa.SignASN1(r, last, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		if !issue.Proven(keyHash(t, &last.PublicKey), csr, proof, &next.PublicKey) {
			t.Fatal("a good proof is refused")
		}
		if !issue.Proven(keyHash(t, &last.PublicKey), csr, nil, &last.PublicKey) {
			t.Error("the key itself needs a proof")
		}
		for name, bad := range map[string]bool{
			"of another key":       issue.Proven(keyHash(t, &other.PublicKey), csr, proof, &next.PublicKey),
			"over another request": issue.Proven(keyHash(t, &last.PublicKey), []byte("another"), proof, &next.PublicKey),
			"none":                 issue.Proven(keyHash(t, &last.PublicKey), csr, nil, &next.PublicKey),
			"no hash on record":    issue.Proven(nil, csr, proof, &next.PublicKey),
		} {
			if bad {
				t.Errorf("a proof is taken: %s", name)
			}
		}
	}
}

// FuzzProof feeds a stranger's bytes to the proof: no panic, and none is ever one.
func FuzzProof(f *testing.F) {
	r := run.NewRand(1)
	last, next := newKey(f, r), newKey(f, r)
	want := keyHash(f, &last.PublicKey)
	sum := sha256.Sum256([]byte("x"))
	good, err := ecdsa.SignASN1(r, next, sum[:])
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("x"), good)
	f.Add([]byte{}, []byte{0x30, 6, 2, 1, 1, 2, 1, 1})
	f.Fuzz(func(t *testing.T, csr, proof []byte) {
		if issue.Proven(want, csr, proof, &next.PublicKey) {
			t.Error("proven")
		}
	})
}
