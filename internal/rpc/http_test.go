package rpc_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/health"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
)

// get is a request by a client that offers HTTP/2 too, as curl does.
func (w *world) get(t *testing.T, config *tls.Config, url string) (int, string) {
	t.Helper()
	config.NextProtos = []string{"h2", "http/1.1"}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: config,
		DialContext:     func(ctx context.Context, n, a string) (net.Conn, error) { return w.env.Net.Dial(ctx, n, a) },
	}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(url)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(body)
}

// gateway is a server with an HTTP handler and a protocol of its own beside gRPC.
func (w *world) gateway(t *testing.T) *member {
	t.Helper()
	m := &member{keeper: w.keeper(t, gatewayRole, "g")}
	m.server = rpc.NewServer(w.env, m.keeper)
	m.server.HandleHTTP(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		p, ok := rpc.PeerOfRequest(r)
		fmt.Fprintf(rw, "%s %v %s", p.ID.Role, ok, r.Proto)
	}))
	m.server.HandleALPN("shoal-echo/1", func(_ context.Context, conn *tls.Conn, p identity.Peer) {
		fmt.Fprint(conn, p.ID.Member())
	})
	m.start(t, "g:1")
	conn, err := rpc.DialAddress(w.env, w.keeper(t, operatorRole, "probe"), "g:1", gatewayRole)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := patient(t, func() error {
		_, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestOnePortSpeaksHTTPAndGRPC(t *testing.T) {
	w := newWorld(t)
	m := w.gateway(t)
	m.server.Health().Set("store", false, "Waiting for the store")
	operator, scheduler := w.keeper(t, operatorRole, "ann"), w.keeper(t, schedulerRole, "s")
	for _, c := range []struct {
		who    string
		config *tls.Config
		path   string
		code   int
		has    string
	}{
		{"an operator", operator.ClientTLS("", gatewayRole), "/metrics", 200, `shoal_health_part{part="store"} 0`},
		{"an operator", operator.ClientTLS("", gatewayRole), "/metrics", 200, "shoal_rpc_server_calls_total"},
		{"an operator", operator.ClientTLS("", gatewayRole), "/healthz", 503, "store: Waiting for the store"},
		{"an operator", operator.ClientTLS("", gatewayRole), "/v1/nodes", 200, "ROLE_OPERATOR true HTTP/1.1"},
		{"a scheduler", scheduler.ClientTLS("", gatewayRole), "/metrics", 403, "operators"},
		{"a scheduler", scheduler.ClientTLS("", gatewayRole), "/v1/nodes", 200, "ROLE_SCHEDULER true"},
		{"nobody", identity.BlindTLS(w.env, ""), "/metrics", 403, "operators"},
		{"nobody", identity.BlindTLS(w.env, ""), "/healthz", 403, "operators"},
		{"nobody", identity.BlindTLS(w.env, ""), "/v1/nodes", 200, "ROLE_UNSPECIFIED false"},
	} {
		code, body := w.get(t, c.config, "https://g:1"+c.path)
		if code != c.code || !strings.Contains(body, c.has) {
			t.Errorf("%s, %s: %d %q, wanted %d %q", c.who, c.path, code, body, c.code, c.has)
		}
	}
}

func TestACertificateThatRanOutIsNoUseOverHTTP(t *testing.T) {
	w := newWorld(t)
	w.gateway(t)
	now := w.env.Now()
	config := identity.BlindTLS(w.env, "")
	cert := w.ca.Certificate(t, identitytest.Leaf{
		URIs: []string{w.ca.ID(operatorRole, "ann").URI()}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(-time.Minute),
	})
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	for _, path := range []string{"/metrics", "/healthz", "/v1/nodes"} {
		if code, body := w.get(t, config, "https://g:1"+path); code != 403 || !strings.Contains(body, "run out") {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
}

// A server has thousands of connections. What it keeps of each peer's certificate is what came, not ten times as much parsed;
// and it looks at it again all the same (TestAConnectionEndsWithItsCertificate).
func TestServersKeepNoParsedLeaf(t *testing.T) {
	w := newWorld(t)
	m := &member{keeper: w.keeper(t, gatewayRole, "g")}
	m.server = rpc.NewServer(w.env, m.keeper)
	parsed := make(chan bool, 1)
	m.server.HandleALPN("shoal-echo/1", func(_ context.Context, conn *tls.Conn, _ identity.Peer) {
		chain := conn.ConnectionState().PeerCertificates
		parsed <- len(chain) == 0 || chain[0].PublicKey != nil
	})
	m.start(t, "g:1")
	config := w.keeper(t, schedulerRole, "s").ClientTLS("shoal-echo/1", gatewayRole)
	if err := patient(t, func() error {
		raw, err := w.env.Net.Dial(t.Context(), "tcp", "g:1")
		if err != nil {
			return errs.New(errs.Unavailable, "it does not listen yet: %w", err)
		}
		defer raw.Close()
		return tls.Client(raw, config).HandshakeContext(t.Context())
	}); err != nil {
		t.Fatal(err)
	}
	if <-parsed {
		t.Error("TLS still has the peer's leaf, parsed")
	}
}

func TestProtocolsOfOurOwn(t *testing.T) {
	w := newWorld(t)
	w.gateway(t)
	say := func(config *tls.Config) string {
		config.NextProtos = []string{"shoal-echo/1"}
		raw, err := w.env.Net.Dial(t.Context(), "tcp", "g:1")
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		got, _ := io.ReadAll(tls.Client(raw, config)) // an error is a refusal
		return string(got)
	}
	if got := say(w.keeper(t, schedulerRole, "s").ClientTLS("", gatewayRole)); got != "scheduler/s" {
		t.Errorf("a peer got %q", got)
	}
	if got := say(identity.BlindTLS(w.env, "")); got != "" {
		t.Errorf("nobody got %q", got)
	}
}

func TestMetricsInClear(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, rpc.ServeMetrics(w.env, health.New(w.env), "127.0.0.1:9")(ctx)
	})
	err := patient(t, func() error {
		conn, err := w.env.Net.Dial(ctx, "tcp", "127.0.0.1:9")
		if err != nil {
			return errs.New(errs.Unavailable, "%w", err)
		}
		return conn.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	if code, body := w.get(t, &tls.Config{}, "http://127.0.0.1:9/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("%d %q", code, body)
	}
	cancel()
	if r := <-done; r.Err != nil {
		t.Error(r.Err)
	}
}
