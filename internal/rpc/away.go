package rpc

import (
	"context"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/run"
)

// awayLimit is how long a server that turns clients away waits for the calls that it has.
const awayLimit = 30 * time.Second

// awayLook is how often it looks for clients that are still there.
const awayLook = 2 * time.Second

// Drain is whether a server should turn its clients away. Changed is closed when Wanted tells something else.
type Drain interface {
	Wanted() bool
	Changed() <-chan struct{}
}

// TurnAway has the server take no connection while that is wanted, and end those that it has in order: each client is told
// to connect elsewhere and loses no call. Call it before Serve.
func (s *Server) TurnAway(d Drain) { s.drain = d }

func (s *Server) turnsAway() bool { return s.drain != nil && s.drain.Wanted() }

// turnAway does so whenever it is wanted, until ctx ends.
func (s *Server) turnAway(ctx context.Context, web *http.Server) error {
	look := time.NewTicker(awayLook)
	defer look.Stop()
	for was := false; ; {
		changed, wanted := s.drain.Changed(), s.drain.Wanted()
		if wanted != was {
			was = wanted
			web.SetKeepAlivesEnabled(!wanted)
			s.env.Log.Info("clients are turned away, or welcome again", "away", wanted)
		}
		// One that was in its handshake when the order came is caught at a later look.
		if wanted && s.Load().Connections > 0 {
			s.calls.renew(ctx)
		}
		select {
		case <-changed:
		case <-look.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Load is what a server has to do.
type Load struct {
	// Connections is how many are open.
	Connections int
	// Calls is how many calls that are no streams are under way.
	Calls int
	// Served is how many calls have come so far, streams included.
	Served uint64
}

// Load is what the server has to do now.
func (s *Server) Load() Load {
	out := Load{Calls: s.ledger.unary()}
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	out.Connections, out.Served = len(s.ledger.conns), s.ledger.served
	return out
}

// grpcSide is the gRPC server in force. grpc has no way to send all clients away and go on, so there is another server
// afterwards, with the same services.
type grpcSide struct {
	make func() *grpc.Server

	mu       sync.Mutex // guards below
	current  generation
	services []service
}

// generation is one gRPC server with its way in.
type generation struct {
	server *grpc.Server
	queue  *queue
}

type service struct {
	desc *grpc.ServiceDesc
	impl any
}

func newGRPCSide(makes func() *grpc.Server) *grpcSide {
	return &grpcSide{make: makes, current: generation{server: makes(), queue: newQueue()}}
}

// RegisterService implements grpc.ServiceRegistrar.
func (g *grpcSide) RegisterService(desc *grpc.ServiceDesc, impl any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.services = append(g.services, service{desc, impl})
	g.current.server.RegisterService(desc, impl)
}

func (g *grpcSide) now() generation {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.current
}

// serve serves one generation after another, until the last one was stopped by somebody else than renew.
func (g *grpcSide) serve(context.Context) error {
	for {
		one := g.now()
		err := one.server.Serve(one.queue)
		if g.now() == one {
			return ignoreClosed(err)
		}
	}
}

// renew puts a new server into force and ends the old one in order: all its clients are told to connect anew, and calls may
// finish within awayLimit.
func (g *grpcSide) renew(ctx context.Context) {
	old := g.replace()
	done := run.Async(ctx, func(context.Context) (struct{}, error) {
		old.server.GracefulStop()
		return struct{}{}, nil
	})
	enough := time.NewTimer(awayLimit)
	defer enough.Stop()
	select {
	case <-done:
		return
	case <-enough.C:
	case <-ctx.Done():
	}
	old.server.Stop()
	<-done
}

func (g *grpcSide) replace() (old generation) {
	next := generation{server: g.make(), queue: newQueue()}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.services {
		next.server.RegisterService(s.desc, s.impl)
	}
	old, g.current = g.current, next
	return old
}
