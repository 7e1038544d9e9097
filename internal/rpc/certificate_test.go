package rpc_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/rpc"
)

// fault is one thing that may be wrong with a certificate. Refused are words that the side which refuses must say.
type fault struct {
	name    string
	leaf    func(w *world, id identity.ID) (tls.Certificate, bool)
	refused string // empty: accepted
}

func faults(t *testing.T) []fault {
	now := time.Now()
	leaf := func(change func(w *world, id identity.ID, l *identitytest.Leaf)) func(*world, identity.ID) (tls.Certificate, bool) {
		return func(w *world, id identity.ID) (tls.Certificate, bool) {
			l := identitytest.Leaf{URIs: []string{id.URI()}}
			change(w, id, &l)
			return w.ca.Certificate(t, l), true
		}
	}
	return []fault{
		{"sound", leaf(func(*world, identity.ID, *identitytest.Leaf) {}), ""},
		{"another root, same cluster", func(w *world, id identity.ID) (tls.Certificate, bool) {
			return identitytest.New(t, w.env, "c1").Certificate(t, identitytest.Leaf{URIs: []string{id.URI()}}), true
		}, "not from this cluster's CA"},
		{"another cluster", func(w *world, id identity.ID) (tls.Certificate, bool) {
			id.Cluster = "c2"
			return identitytest.New(t, w.env, "c2").Certificate(t, identitytest.Leaf{URIs: []string{id.URI()}}), true
		}, "is of cluster c2, this is cluster c1"},
		{"another cluster, signed by ours", leaf(func(_ *world, id identity.ID, l *identitytest.Leaf) {
			id.Cluster = "c2"
			l.URIs = []string{id.URI()}
		}), "is of cluster c2, this is cluster c1"},
		{"no URI", leaf(func(_ *world, _ identity.ID, l *identitytest.Leaf) { l.URIs = nil }), "has 0 URI names"},
		{"two URIs", leaf(func(w *world, id identity.ID, l *identitytest.Leaf) {
			l.URIs = append(l.URIs, w.ca.ID(operatorRole, "eve").URI())
		}), "has 2 URI names"},
		{"a URI that is none of ours", leaf(func(_ *world, _ identity.ID, l *identitytest.Leaf) {
			l.URIs = []string{"https://c1/store/m1"}
		}), "does not begin with spiffe://"},
		{"expired beyond the grace", leaf(func(_ *world, _ identity.ID, l *identitytest.Leaf) {
			l.NotBefore, l.NotAfter = now.Add(-200*24*time.Hour), now.Add(-100*24*time.Hour)
		}), "on this machine's clock"},
		{"not valid yet", leaf(func(_ *world, _ identity.ID, l *identitytest.Leaf) {
			l.NotBefore = now.Add(time.Hour)
		}), "on this machine's clock"},
		{"no usage", leaf(func(_ *world, _ identity.ID, l *identitytest.Leaf) {
			l.Usage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
		}), "not from this cluster's CA"},
		{"denied", leaf(func(_ *world, id identity.ID, l *identitytest.Leaf) {
			id.Name = "removed"
			l.URIs = []string{id.URI()}
		}), "has been removed from the cluster"},
	}
}

// What a server makes of its clients' certificates.
func TestServersRefuseFaultyClients(t *testing.T) {
	for _, f := range faults(t) {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			log := newLogged()
			w.env.Log = slog.New(log)
			k := w.keeper(t, storeRole, "m1")
			k.SetTrust(nil, []string{"scheduler/removed"})
			m := w.serve(t, k, "a:1")
			config := identity.BlindTLS(w.env, "h2")
			cert, _ := f.leaf(w, w.ca.ID(schedulerRole, "s"))
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			conn, err := rpc.DialTLS(w.env, "a:1", config)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			err = patient(t, func() error {
				err := commitOnce(t.Context(), conn, "r")
				if err != nil && strings.Contains(log.String(), "connection refused") {
					return errs.New(errs.Denied, "%s", log) // TLS has no way to say why: the log has
				}
				return err
			})
			if f.refused == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), f.refused) || m.calls.Load() > 0 {
				t.Fatalf("wanted a refusal with %q, got %v after %d calls", f.refused, err, m.calls.Load())
			}
		})
	}
}

// What a client makes of its server's certificate.
func TestClientsRefuseFaultyServers(t *testing.T) {
	more := []fault{
		{"another role", func(w *world, _ identity.ID) (tls.Certificate, bool) {
			return w.ca.Certificate(t, identitytest.Leaf{URIs: []string{w.ca.ID(schedulerRole, "s").URI()}}), true
		}, "the peer is scheduler/s, wanted store"},
		{"expired within the grace", func(w *world, id identity.ID) (tls.Certificate, bool) {
			now := w.env.Now()
			return w.ca.Certificate(t, identitytest.Leaf{URIs: []string{id.URI()}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(-time.Minute)}), true
		}, "on this machine's clock"},
	}
	for _, f := range append(faults(t), more...) {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			k := w.keeper(t, schedulerRole, "s")
			k.SetTrust(nil, []string{"store/removed"})
			cert, _ := f.leaf(w, w.ca.ID(storeRole, "m1"))
			_, err := handshake(t, w, k, cert)
			if f.refused == "" && err != nil || f.refused != "" && (err == nil || !strings.Contains(err.Error(), f.refused)) {
				t.Fatalf("wanted %q, got %v", f.refused, err)
			}
		})
	}
}

// handshake is a client's against a bare TLS server with the certificate.
func handshake(t *testing.T, w *world, k *identity.Keeper, cert tls.Certificate) (tls.ConnectionState, error) {
	t.Helper()
	l, err := w.env.Net.Listen(t.Context(), "tcp", "bare:1")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		raw, err := l.Accept()
		if err != nil {
			return
		}
		conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, ClientAuth: tls.RequestClientCert})
		_ = conn.Handshake()
	}()
	raw, err := w.env.Net.Dial(t.Context(), "tcp", "bare:1")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, k.ClientTLS("h2", storeRole))
	err = conn.HandshakeContext(t.Context())
	return conn.ConnectionState(), err
}

func TestOnlyTLS13(t *testing.T) {
	w := newWorld(t)
	w.serve(t, w.keeper(t, storeRole, "m1"), "a:1")
	k := w.keeper(t, schedulerRole, "s")
	if err := patient(t, func() error { return commitOnce(t.Context(), w.dial(t, k, "a:1"), "r") }); err != nil {
		t.Fatal(err)
	}
	raw, err := w.env.Net.Dial(t.Context(), "tcp", "a:1")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	config := k.ClientTLS("h2", storeRole)
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if err := tls.Client(raw, config).HandshakeContext(t.Context()); err == nil {
		t.Error("TLS 1.2 was spoken")
	}
}

func TestASilentClientIsCutAfterFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.serve(t, w.keeper(t, storeRole, "m1"), "a:1")
		synctest.Wait()
		raw, err := w.env.Net.Dial(t.Context(), "tcp", "a:1")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := raw.Read(make([]byte, 1)); err == nil {
			t.Error("the server spoke first")
		}
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("cut after %s", d)
		}
		m.end(t)
	})
}

// The peer comes back with a newer certificate; it must not stay for ever with one that has run out.
func TestAConnectionEndsWithItsCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		k := w.ca.KeeperOf(t, w.env, identitytest.Leaf{URIs: []string{w.ca.ID(storeRole, "m1").URI()}, NotAfter: time.Now().Add(1000 * time.Hour)})
		m := w.serve(t, k, "a:1")
		synctest.Wait()
		conn := w.dial(t, w.keeper(t, schedulerRole, "s"), "a:1")
		stream := watch(t, conn)
		start := time.Now()
		if _, err := stream.Recv(); err == nil {
			t.Error("a message after the first")
		}
		if d := time.Since(start); d < identitytest.Life-time.Minute || d > identitytest.Life+time.Second {
			t.Errorf("the stream ended after %s", d)
		}
		if err := listOrCommit(t, conn); !errs.Is(err, errs.Denied) {
			t.Errorf("a call with the certificate that has run out: %v", err)
		}
		_ = conn.Close()
		m.end(t)
	})
}

// A server goes by the certificate of the handshake for as long as a connection lives: one made with a leaf that has run
// out must be made again after the renewal, or its calls are refused for ever.
func TestAConnectionOfAnExpiredLeafEndsWithTheRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.serve(t, w.keeper(t, storeRole, "m1"), "a:1")
		synctest.Wait()
		now := time.Now()
		uris := []string{w.ca.ID(schedulerRole, "s").URI()}
		k := w.ca.KeeperOf(t, w.env, identitytest.Leaf{URIs: uris, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})
		conn := w.dial(t, k, "a:1")
		if err := commitOnce(t.Context(), conn, "r1"); !errs.Is(err, errs.Denied) {
			t.Fatalf("a call with a leaf that has run out: %v", err)
		}
		if err := k.RenewOnce(t.Context(), func(_ context.Context, csr []byte) ([]byte, []byte, error) {
			return w.ca.SignCSR(t, identitytest.Leaf{URIs: uris}, csr), nil, nil
		}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := commitOnce(t.Context(), conn, "r2"); err != nil {
			t.Errorf("a call after the renewal: %v", err)
		}
		_ = conn.Close()
		m.end(t)
	})
}
