package rpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

// from dials out of one of this machine's loopback addresses.
func from(t *testing.T, source, to string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	conn, err := d.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// One host that opens connections and says nothing must not keep the others out.
func TestAHostThatSaysNothingTakesItsOwnPlacesOnly(t *testing.T) {
	w := newWorld(t)
	w.env.Net = run.Machine("test").Net
	l, err := w.env.Net.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	w.serve(t, w.keeper(t, storeRole, "m1"), addr)
	for deadline := time.Now().Add(5 * time.Second); ; {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	// Step 1: more silent connections than one host may have; the server takes them in their order and closes the last.
	var last net.Conn
	for range 80 {
		last = from(t, "127.0.0.1", addr)
	}
	_ = last.SetReadDeadline(time.Now().Add(3 * time.Second))
	if _, err := last.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the last of 80 silent connections: %v, wanted that it is closed", err)
	}
	// Step 2: another host.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	conn := tls.Client(from(t, "127.0.0.2", addr), identity.BlindTLS(w.env, "h2"))
	if err := conn.HandshakeContext(ctx); err != nil {
		t.Errorf("another host was not let in: %v", err)
	}
}
