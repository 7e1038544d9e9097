package issue

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Proven says that a request comes from the holder of the key that was certified last: its own key is that one, or the
// proof is that key's signature over the request's SHA-256.
//
// The store keeps only the hash of that key, so the key is recovered from the signature (SEC 1, 4.1.6: at most four keys fit
// one), and must have the hash. Who does not have the private key would have to find another key with the same SHA-256.
func Proven(keyHash, csr, proof []byte, key *ecdsa.PublicKey) bool {
	if len(keyHash) != sha256.Size {
		return false
	}
	if hashIs(key, keyHash) {
		return true
	}
	digest := sha256.Sum256(csr)
	for _, candidate := range recovered(digest[:], proof) {
		if hashIs(candidate, keyHash) && ecdsa.VerifyASN1(candidate, digest[:], proof) {
			return true
		}
	}
	return false
}

func hashIs(key *ecdsa.PublicKey, want []byte) bool {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return false
	}
	sum := sha256.Sum256(der)
	return bytes.Equal(sum[:], want)
}

// recovered lists the P-256 keys under which the signature could be valid: Q = r⁻¹(sR − eG) for each point R whose x is r
// modulo the order.
func recovered(digest, signature []byte) []*ecdsa.PublicKey {
	curve := elliptic.P256()
	p := curve.Params()
	r, s, ok := parseSignature(signature, p.N)
	if !ok {
		return nil
	}
	e := new(big.Int).SetBytes(digest)
	inverse := new(big.Int).ModInverse(r, p.N)
	u1 := new(big.Int).Mod(new(big.Int).Neg(new(big.Int).Mul(e, inverse)), p.N) // −e/r
	u2 := new(big.Int).Mod(new(big.Int).Mul(s, inverse), p.N)                   // s/r
	var out []*ecdsa.PublicKey
	for x := new(big.Int).Set(r); x.Cmp(p.P) < 0; x.Add(x, p.N) {
		for _, sign := range []byte{2, 3} {
			px, py := elliptic.UnmarshalCompressed(curve, append([]byte{sign}, x.FillBytes(make([]byte, 32))...))
			if px == nil {
				continue // no point of the curve has this x
			}
			if q := combine(curve, u1, u2, px, py); q != nil {
				out = append(out, q)
			}
		}
	}
	return out
}

// combine is u1·G + u2·P. The deprecated methods are what the standard library offers for points, and all is public here.
func combine(curve elliptic.Curve, u1, u2, px, py *big.Int) *ecdsa.PublicKey {
	ax, ay := curve.ScalarBaseMult(u1.FillBytes(make([]byte, 32)))     //nolint:staticcheck // see above
	bx, by := curve.ScalarMult(px, py, u2.FillBytes(make([]byte, 32))) //nolint:staticcheck // see above
	qx, qy := curve.Add(ax, ay, bx, by)                                //nolint:staticcheck // see above
	if qx.Sign() == 0 && qy.Sign() == 0 {
		return nil // the point at infinity is no key
	}
	point := append([]byte{4}, qx.FillBytes(make([]byte, 32))...)
	q, err := ecdsa.ParseUncompressedPublicKey(curve, append(point, qy.FillBytes(make([]byte, 32))...))
	if err != nil {
		return nil
	}
	return q
}

func parseSignature(signature []byte, order *big.Int) (r, s *big.Int, ok bool) {
	r, s = new(big.Int), new(big.Int)
	input := cryptobyte.String(signature)
	var inner cryptobyte.String
	if !input.ReadASN1(&inner, asn1.SEQUENCE) || !input.Empty() ||
		!inner.ReadASN1Integer(r) || !inner.ReadASN1Integer(s) || !inner.Empty() {
		return nil, nil, false
	}
	inRange := func(n *big.Int) bool { return n.Sign() > 0 && n.Cmp(order) < 0 }
	return r, s, inRange(r) && inRange(s)
}
