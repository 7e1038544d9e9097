// Package hoptest makes TLS connections between the meshproxies of tests.
//
// It owns their certificates. It must never be part of a process. Its functions are safe for concurrent use.
package hoptest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/shoalproject/shoal/services/meshproxy/internal/hop"
)

// Keys are what two meshproxies trust each other by.
type Keys struct{ config *tls.Config }

// Logging is New whose secrets are told to w, as SSLKEYLOGFILE has them.
func Logging(t testing.TB, w io.Writer) *Keys {
	t.Helper()
	k := New(t)
	k.config.KeyLogWriter = w
	return k
}

// New makes some.
func New(t testing.TB) *Keys {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"test"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &Keys{&tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, ServerName: "test", MinVersion: tls.VersionTLS13,
	}}
}

// Client does the handshake of who has dialled.
func (k *Keys) Client(ctx context.Context, raw net.Conn) (net.Conn, error) {
	return shaken(ctx, tls.Client(hop.Below(raw), k.config))
}

// Server does the handshake of who was dialled.
func (k *Keys) Server(ctx context.Context, raw net.Conn) (net.Conn, error) {
	return shaken(ctx, tls.Server(hop.Below(raw), k.config))
}

func shaken(ctx context.Context, conn *tls.Conn) (net.Conn, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error says all
		return nil, err
	}
	return conn, nil
}
