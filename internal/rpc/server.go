package rpc

import (
	"context"
	"crypto/tls"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/shoalproject/shoal/internal/authz"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/health"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

const (
	handshakeLimit = 5 * time.Second
	stopLimit      = 3 * time.Second
	stopMoment     = 100 * time.Millisecond
	ownLimit       = 2 * time.Second // a protocol of ours has this long for what is under way when the server stops
	maxMessage     = 4 << 20
	writeBuffer    = 32 << 10
	// What may be under way unread, on one stream and on one connection. Windows that gRPC sizes itself cost a ping for each
	// heartbeat: three times the packets of thousands of machines that say little. 1 MiB is 100 MB/s over 10 ms.
	streamWindow = 1 << 20
	connWindow   = 4 << 20
	maxStreams   = 1000
	// maxShaking bounds handshakes under way: each costs a signature before we know who it is.
	maxShaking = 512
	// leastShaking of them there may always be. One that takes longer than shakesSlowly is in danger of being given up.
	leastShaking = 32
	shakesSlowly = connectLimit * 7 / 10
	// maxShakingOfOne bounds them for one address, so that a host that says nothing on its connections takes no place from
	// the others.
	maxShakingOfOne = 64
	// A peer that vanished is noticed after keepaliveTime + keepaliveWait even if nothing is sent to it.
	keepaliveTime  = 10 * time.Second
	keepaliveWait  = 4 * time.Second
	keepaliveLeast = 5 * time.Second // more frequent pings of a client are an attack
	userTimeout    = 10 * time.Second
)

// Handler serves a connection of an own protocol; it is closed when the handler returns. Ctx ends when the server stops.
type Handler func(ctx context.Context, conn *tls.Conn, peer identity.Peer)

// Server serves gRPC, HTTP and own protocols on the same ports. Register everything before Serve.
type Server struct {
	env    run.Env
	keep   *identity.Keeper
	calls  *grpcSide
	health *health.Server
	http   http.Handler // nil: nothing beside /metrics and /healthz
	alpn   map[string]Handler
	rules  *authz.Registry // set by Serve before the first connection
	ledger *ledger
	drain  Drain // nil: never
}

// ServerOption changes a Server.
type ServerOption func(*serverOptions)

type serverOptions struct {
	message int
	streams uint32
	write   int
}

// MaxMessage is the largest request in bytes; 4 MiB if not said.
func MaxMessage(bytes int) ServerOption {
	return func(o *serverOptions) { o.message = bytes }
}

// MaxStreams is how many calls one connection may have open; 1000 if not said.
func MaxStreams(n uint32) ServerOption {
	return func(o *serverOptions) { o.streams = n }
}

// WriteBuffer is how much of what goes to one client is gathered before it is written, in bytes; 32 KiB if not said. It is
// there while a client is written to; a server that writes a little to each of thousands at once does well with less.
func WriteBuffer(bytes int) ServerOption {
	return func(o *serverOptions) { o.write = bytes }
}

// NewServer makes a server with the health service and reflection.
func NewServer(env run.Env, k *identity.Keeper, opts ...ServerOption) *Server {
	o := serverOptions{message: maxMessage, streams: maxStreams, write: writeBuffer}
	for _, f := range opts {
		f(&o)
	}
	s := &Server{env: env, keep: k, health: health.New(env), alpn: map[string]Handler{}, ledger: newLedger(env, k)}
	meter := newMeter(env, "server", s.known)
	s.calls = newGRPCSide(func() *grpc.Server {
		one := grpc.NewServer(
			grpc.Creds(serverCredentials{s}),
			grpc.MaxRecvMsgSize(o.message),
			grpc.MaxConcurrentStreams(o.streams),
			grpc.ConnectionTimeout(handshakeLimit),
			// Thousands of machines hold a connection each, and most of them say little. TLS has a buffer of its own.
			grpc.ReadBufferSize(0),
			grpc.WriteBufferSize(o.write),
			// A client's headers are some hundred bytes once a call; remembered to be said in fewer they are there for as long as it is.
			grpc.HeaderTableSize(0),
			grpc.StaticStreamWindowSize(streamWindow),
			grpc.StaticConnWindowSize(connWindow),
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveWait}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveLeast, PermitWithoutStream: true}),
			// errs is outermost, so that it maps what the others return; guard inside it, so that a panic has a status too.
			grpc.ChainUnaryInterceptor(errs.UnaryServer(), s.guardUnary, s.allowUnary),
			grpc.ChainStreamInterceptor(errs.StreamServer(), s.guardStream, s.allowStream),
			grpc.StatsHandler(meter),
			grpc.WaitForHandlers(true),
		)
		healthpb.RegisterHealthServer(one, s.health.GRPC())
		reflection.Register(one)
		return one
	})
	return s
}

// GRPC is where services are registered.
func (s *Server) GRPC() grpc.ServiceRegistrar { return s.calls }

// Health is the process's health.
func (s *Server) Health() *health.Server { return s.health }

// HandleHTTP takes HTTP requests that are not for /metrics or /healthz. PeerOfRequest says who asks; a client without a
// certificate is let through to the handler.
func (s *Server) HandleHTTP(h http.Handler) { s.http = h }

// HandleALPN takes connections of an own protocol. Only peers with a certificate that is in force are let through.
func (s *Server) HandleALPN(proto string, h Handler) { s.alpn[proto] = h }

// Registry is the rules of all services registered so far. It fails as Serve does.
func (s *Server) Registry() (*authz.Registry, error) {
	return authz.New(s.calls.now().server.GetServiceInfo())
}

// Serve makes a task for a run.Group: it checks that every method has a rule, listens, and serves until ctx ends. Then
// streams are told to end (Unavailable), unary calls have 3 s, and the rest is cut.
func (s *Server) Serve(listen []string) func(context.Context) error {
	return func(ctx context.Context) error {
		rules, err := s.Registry()
		if err != nil {
			return err
		}
		s.rules = rules
		listeners, err := s.listen(ctx, listen)
		if err != nil {
			return err
		}
		s.env.Log.Info("serving", "addresses", addresses(listeners), "methods", len(rules.Methods()))
		s.health.Set("listener", true, "")
		return s.serve(ctx, listeners)
	}
}

func (s *Server) listen(ctx context.Context, addrs []string) ([]net.Listener, error) {
	var out []net.Listener
	for _, a := range addrs {
		l, err := s.env.Net.Listen(ctx, "tcp", a)
		if err != nil {
			closeListeners(out)
			return nil, errs.New(errs.Unavailable, "listen on %s: %w; is the address this machine's, and does no other process use the port?", a, err)
		}
		out = append(out, l)
	}
	return out, nil
}

func closeListeners(ls []net.Listener) {
	for _, l := range ls {
		_ = l.Close() // an error here is about a listener that nobody uses any more
	}
}

func addresses(ls []net.Listener) []string {
	out := make([]string, len(ls))
	for i, l := range ls {
		out[i] = l.Addr().String()
	}
	return out
}

// serve runs until ctx ends. Everything below is a task of one group, and the group's context is ctx's child.
func (s *Server) serve(ctx context.Context, listeners []net.Listener) error {
	// Step 1: the queues into which accepted connections go by their protocol.
	own := run.NewSpawner(s.env.Log)
	door := &door{server: s, tasks: own, grpc: s.calls, http: newQueue(), slots: slots{of: map[string]int{}}}
	web := s.newHTTPServer()

	g := run.NewGroup(s.env.Log)
	g.Go("grpc", s.calls.serve)
	g.Go("http", func(context.Context) error { return ignoreClosed(web.Serve(door.http)) })
	g.Go("connections", own.Run)
	g.Go("rights", s.ledger.run)
	if s.drain != nil {
		g.Go("turn away", func(ctx context.Context) error { return s.turnAway(ctx, web) })
	}
	for _, l := range listeners {
		g.Go("accept "+l.Addr().String(), func(ctx context.Context) error { return door.accept(ctx, l) })
	}
	// Step 2: the end, in the order that loses least: no new connections, streams told, calls awaited, the rest cut.
	g.Go("stop", func(ctx context.Context) error {
		<-ctx.Done()
		closeListeners(listeners)
		s.health.Shutdown()
		s.ledger.endStreams(errs.New(errs.Unavailable, "%s stops; another member serves", s.keep.ID()))
		s.stopGRPC(context.WithoutCancel(ctx))
		_ = web.Close() // what it still has open is cut below
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), ownLimit)
		defer cancel()
		_ = own.Wait(wait) // protocols of ours end what is under way; what has not by then is cut
		s.ledger.closeAll()
		return nil
	})
	return g.Wait(ctx)
}

// stopGRPC lets unary calls finish. Streams have been told; a handler that waits for its client's next message does not
// hear it, so what is left is cut as soon as no unary call is open and the others have had a moment to say why they end.
func (s *Server) stopGRPC(ctx context.Context) {
	done := run.Async(ctx, func(context.Context) (struct{}, error) {
		s.calls.now().server.GracefulStop()
		return struct{}{}, nil
	})
	tick := time.NewTicker(stopMoment)
	defer tick.Stop()
	quiet := 0 // looks in a row without a unary call; one is not enough, the last answer may still be on its way
	for waited := time.Duration(0); waited < stopLimit && quiet < 2; waited += stopMoment {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		quiet++
		if s.ledger.unary() > 0 {
			quiet = 0
		}
	}
	// Connections go first: a handler that is stuck in a send must not hold Stop.
	s.ledger.closeAll()
	s.calls.now().server.Stop()
	<-done
}

// protocols are what the server offers, in its order of preference: http/1.1 before h2, so that curl and Prometheus,
// which offer both, get HTTP; gRPC clients offer h2 alone.
func (s *Server) protocols() []string {
	return append([]string{protoHTTP, protoGRPC}, slices.Sorted(maps.Keys(s.alpn))...)
}

// known says whether there is such a method; nil rules are those of a server that does not serve yet.
func (s *Server) known(method string) bool { return s.rules != nil && s.rules.Rule(method) != nil }
