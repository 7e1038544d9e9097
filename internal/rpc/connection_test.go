package rpc

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/testx"
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

// TestIssuersAreKeptOnce: thousands of peers have the same issuers, which TLS parses anew for each.
func TestIssuersAreKeptOnce(t *testing.T) {
	l := newLedger(testx.Env(t), nil)
	parsed := func(raw string) *x509.Certificate { return &x509.Certificate{Raw: []byte(raw)} }
	first, other := parsed("issuer"), parsed("another")
	if l.issuer(first) != first || l.issuer(other) != other {
		t.Error("what nobody has brought before is another's")
	}
	if l.issuer(parsed("issuer")) != first || l.issuer(parsed("another")) != other {
		t.Error("the same issuer is kept twice")
	}
	runtime.KeepAlive(first)
	runtime.KeepAlive(other)
	runtime.GC()
	if third := parsed("third"); l.issuer(third) != third || len(l.issuers) != 1 {
		t.Errorf("%d issuers are kept, want the one in use", len(l.issuers))
	}
}

// TestExchangedConnectionIsClosedByTheLedger: who carries a connection by his own means hears of its end, and cannot take one that has
// ended meanwhile.
func TestExchangedConnectionIsClosedByTheLedger(t *testing.T) {
	l := &ledger{conns: map[*conn]struct{}{}}
	first, other := net.Pipe()
	defer other.Close()
	taken, beyond := net.Pipe()
	c := l.wrap(first)
	c.Exchange(func(raw net.Conn) net.Conn {
		if raw != first {
			t.Error("another connection is below")
		}
		return taken
	})
	l.conns[c] = struct{}{}
	if err := beyond.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil { // a pipe takes none when its other end is closed
		t.Fatal(err)
	}
	l.closeAll()
	if _, err := beyond.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("what was taken is still open: %v", err)
	}
	c.Exchange(func(raw net.Conn) net.Conn {
		t.Error("one that has ended was taken")
		return raw
	})
}
