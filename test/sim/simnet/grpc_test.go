package simnet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/shoalproject/shoal/test/sim/simnet"
)

// mutualTLS is one self-signed identity that both sides use and trust.
func mutualTLS(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sim"}, DNSNames: []string{"server"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		ServerName: "server", MinVersion: tls.VersionTLS13, Time: time.Now,
	}
}

func serve(t *testing.T, on *simnet.Host, conf *tls.Config) (srv *grpc.Server, addr string) {
	t.Helper()
	l := listen(t, on, "tcp", ":2381")
	srv = grpc.NewServer(grpc.Creds(credentials.NewTLS(conf)))
	healthv1.RegisterHealthServer(srv, health.NewServer())
	go srv.Serve(l)
	return srv, net.JoinHostPort(on.Addr(), "2381")
}

func client(t *testing.T, on *simnet.Host, addr string, conf *tls.Config) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(credentials.NewTLS(conf)),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return on.Dial(ctx, "tcp", addr) }),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	return cc
}

// TestGRPCOverTLSLivesAnHour has twenty clients with an open stream and a call a second each, through mutual TLS.
func TestGRPCOverTLSLivesAnHour(t *testing.T) {
	clients, length := 20, time.Hour
	if testing.Short() {
		length = 5 * time.Minute
	}
	wall := time.Now()
	var calls atomic.Int64
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(1)
		defer n.Close()
		conf := mutualTLS(t)
		srv, addr := serve(t, n.Host("server"), conf)
		defer srv.Stop()
		var wg sync.WaitGroup
		for i := range clients {
			cc := client(t, n.Host(fmt.Sprintf("c%d", i)), addr, conf)
			wg.Go(func() {
				defer cc.Close()
				hc := healthv1.NewHealthClient(cc)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				watch, err := hc.Watch(ctx, &healthv1.HealthCheckRequest{})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := watch.Recv(); err != nil {
					t.Error(err)
				}
				for start := time.Now(); time.Since(start) < length; time.Sleep(time.Second) {
					ctx, cancel := context.WithTimeout(ctx, time.Second)
					_, err := hc.Check(ctx, &healthv1.HealthCheckRequest{})
					cancel()
					if err != nil {
						t.Error(err)
						return
					}
					calls.Add(1)
				}
			})
		}
		wg.Wait()
	})
	if want := int64(clients) * int64(length/time.Second); calls.Load() != want {
		t.Errorf("%d calls, want %d", calls.Load(), want)
	}
	t.Logf("%d calls in %s of virtual time took %s", calls.Load(), length, time.Since(wall))
}

// TestGRPCRecovers has a client that meets each fault in turn, and works again after each.
func TestGRPCRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(2)
		defer n.Close()
		conf := mutualTLS(t)
		m1, m2 := n.Host("m1"), n.Host("m2")
		srv, addr := serve(t, m1, conf)
		cc := client(t, m2, addr, conf)
		defer cc.Close()
		check := func(d time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			_, err := healthv1.NewHealthClient(cc).Check(ctx, &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true))
			return err
		}
		works := func(when string) {
			t.Helper()
			start := time.Now()
			for err := check(time.Second); err != nil; err = check(time.Second) { // a call on the lost connection may fail
				if time.Since(start) > time.Minute {
					t.Fatalf("%s: %v", when, err)
				}
			}
		}
		works("at first")
		n.Cut(nil, nil)
		works("after a cut")
		n.Isolate("m1")
		if err := check(5 * time.Second); err == nil {
			t.Error("a call crossed a partition")
		}
		n.Heal()
		works("after a partition")
		n.Loss(nil, nil, 0.2)
		n.Delay(nil, nil, 10*time.Millisecond, 10*time.Millisecond)
		for range 50 {
			works("under loss and delay")
		}
		n.Loss(nil, nil, 0)
		n.Pause("m1")
		time.AfterFunc(5*time.Second, func() { n.Resume("m1") })
		works("over a pause")
		n.Crash("m1")
		srv.Stop()
		n.Boot("m1")
		srv, _ = serve(t, m1, conf)
		works("after a crash")
		srv.Stop()
	})
}

// TestManyBubblesInOneProcess holds the rule that nothing outlives a bubble.
func TestManyBubblesInOneProcess(t *testing.T) {
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New(1)
			conf := mutualTLS(t)
			srv, addr := serve(t, n.Host("a"), conf)
			cc := client(t, n.Host("b"), addr, conf)
			n.Delay(nil, nil, time.Millisecond, time.Millisecond)
			if _, err := healthv1.NewHealthClient(cc).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
				t.Fatal(err)
			}
			cc.Close()
			srv.Stop()
			n.Close()
		})
	}
}
