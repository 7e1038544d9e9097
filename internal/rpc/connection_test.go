package rpc

import (
	"crypto/x509"
	"testing"

	"github.com/shoalproject/shoal/internal/identity"
)

// TestALookTakesNothingFromTLS: what TLS keeps of a peer's chain is emptied while a sweep may look at the connection; it sees the peer
// all the same.
func TestALookTakesNothingFromTLS(t *testing.T) {
	leaf := &x509.Certificate{Raw: []byte("leaf")}
	var seen *x509.Certificate
	l := &ledger{conns: map[*conn]struct{}{}}
	c := &conn{ledger: l}
	kept := []*x509.Certificate{leaf}
	if _, err := l.admit(c, kept, func(chain []*x509.Certificate) (identity.Peer, error) {
		seen = chain[0]
		return identity.Peer{Expired: true}, nil
	}); err != nil {
		t.Fatal(err)
	}
	kept[0] = &x509.Certificate{}
	if _, err := c.look(); err != nil || seen != leaf {
		t.Errorf("looked at %v: %v", seen, err)
	}
}
