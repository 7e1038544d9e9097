package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"sync"
	"time"
)

// maxProven bounds how many chains are remembered: more than the handshakes that a server has under way.
const maxProven = 512

// proven remembers chains whose signatures lead to a root, for one trust. A server looks at a chain twice in a row, a client at the same
// server's again and again, and signatures are most of what a look costs. They hold for ever; what does not, such as time, the deny list
// and the roles, is looked at each time. It is safe for concurrent use. A nil one remembers nothing.
type proven struct {
	mu sync.Mutex // guards of
	of map[proof]span
}

// proof is a digest of what was proven: for which usage, and each certificate that the peer sent.
type proof [sha256.Size]byte

// span is when all certificates of a chain are valid.
type span struct{ from, to time.Time }

func newProven() *proven { return &proven{of: map[proof]span{}} }

func proofOf(usage x509.ExtKeyUsage, chain []*x509.Certificate) (p proof) {
	h := sha256.New()
	number := binary.BigEndian.AppendUint64(nil, uint64(usage))
	h.Write(number)
	for _, cert := range chain {
		h.Write(binary.BigEndian.AppendUint64(number[:0], uint64(len(cert.Raw))))
		h.Write(cert.Raw)
	}
	h.Sum(p[:0])
	return p
}

// holds says that a chain is proven, and all of it valid at a time.
func (k *proven) holds(p proof, at time.Time) bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := k.of[p]
	return ok && !at.Before(s.from) && !at.After(s.to)
}

// note remembers the whole chain, root included, that a proof led to. Of too many some go, whichever.
func (k *proven) note(p proof, whole []*x509.Certificate) {
	if k == nil {
		return
	}
	s := span{from: whole[0].NotBefore, to: whole[0].NotAfter}
	for _, cert := range whole[1:] {
		if cert.NotBefore.After(s.from) {
			s.from = cert.NotBefore
		}
		if cert.NotAfter.Before(s.to) {
			s.to = cert.NotAfter
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for old := range k.of {
		if len(k.of) < maxProven {
			break
		}
		delete(k.of, old)
	}
	k.of[p] = s
}
