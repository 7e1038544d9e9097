package rpc

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/health"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

const (
	headerLimit = 5 * time.Second
	idleLimit   = time.Minute
	headerBytes = 64 << 10
)

type peerCtx struct{}

// PeerOfRequest is who sent an HTTP request to a Server; false for a client without a certificate. A certificate that has
// run out never gets this far.
func PeerOfRequest(r *http.Request) (identity.Peer, bool) {
	p, ok := r.Context().Value(peerCtx{}).(identity.Peer)
	return p, ok && !p.ID.IsZero()
}

func (s *Server) newHTTPServer() *http.Server {
	mux := http.NewServeMux()
	mux.Handle("/metrics", people(promhttp.HandlerFor(s.env.Metrics, promhttp.HandlerOpts{})))
	mux.Handle("/healthz", people(s.health))
	if s.http != nil {
		mux.Handle("/", s.http)
	}
	return &http.Server{
		Handler:           inForce(mux),
		ReadHeaderTimeout: headerLimit,
		IdleTimeout:       idleLimit,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          slog.NewLogLogger(s.env.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerCtx{}, peerOfConn(c))
		},
	}
}

// inForce refuses peers whose certificate has run out: all that it is good for is gRPC.
func inForce(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, ok := PeerOfRequest(r); ok && p.Expired {
			http.Error(w, "your certificate has run out at "+p.NotAfter.UTC().Format(time.RFC3339)+"; renew it", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// people lets operators and viewers through.
func people(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := PeerOfRequest(r)
		if p.ID.Role != authzv1.Role_ROLE_OPERATOR && p.ID.Role != authzv1.Role_ROLE_VIEWER {
			http.Error(w, "this is for operators and viewers; present such a client certificate", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ServeMetrics makes a task that serves /metrics and /healthz in clear. The address must be a loopback one: config.Base
// sees to that.
func ServeMetrics(env run.Env, h *health.Server, address string) func(context.Context) error {
	return func(ctx context.Context) error {
		l, err := env.Net.Listen(ctx, "tcp", address)
		if err != nil {
			return err
		}
		mux := http.NewServeMux()
		mux.Handle("/metrics", promhttp.HandlerFor(env.Metrics, promhttp.HandlerOpts{}))
		mux.Handle("/healthz", h)
		web := &http.Server{Handler: mux, ReadHeaderTimeout: headerLimit, IdleTimeout: idleLimit, MaxHeaderBytes: headerBytes}
		defer context.AfterFunc(ctx, func() { _ = web.Close() })()
		return ignoreClosed(web.Serve(l))
	}
}
