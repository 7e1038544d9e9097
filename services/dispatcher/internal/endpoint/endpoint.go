// Package endpoint serves meshproxies: the tables of their machine, whole first, then differences.
//
// It owns when a meshproxy counts as up to date: when it has answered for the last change that was sent to it, every later
// revision that changed nothing for it is in force as well. It never serves tables that the quorum has not confirmed once:
// an empty or old table would take every service off its port. The shared part is made at most once every 20 ms, for all
// streams. A stream has one sender, its handler; a Server is safe for concurrent use, and Run has one caller.
package endpoint

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/barrier"
	"github.com/shoalproject/shoal/services/dispatcher/internal/bulletin"
	"github.com/shoalproject/shoal/services/dispatcher/internal/mesh"
)

const (
	// pace is the least time between two makings of the tables: revisions that come close together share one.
	pace = 20 * time.Millisecond
	// patience bounds the wait for a stream's first message, and for the first tables.
	patience = 5 * time.Second
)

// View is the replica.
type View interface {
	Snapshot() *state.Snapshot
	Changed() <-chan struct{}
	// Confirmed is closed when the quorum next confirms that the snapshot is the newest.
	Confirmed() <-chan struct{}
}

type stream = grpc.BidiStreamingServer[dispatcherv1.EndpointsRequest, dispatcherv1.EndpointsResponse]

// edition is one making of the tables.
type edition struct {
	snapshot *state.Snapshot
	shared   *mesh.Shared
	stale    bool // the quorum is away
}

// Server implements dispatcher.v1.EndpointService.
type Server struct {
	dispatcherv1.UnimplementedEndpointServiceServer

	view    View
	barrier *barrier.Barrier
	board   *bulletin.Board
	open    prometheus.Gauge
	refusal func() error

	draining  chan struct{}
	drainOnce sync.Once

	mu      sync.Mutex // guards below
	latest  *edition   // nil before the first
	printed chan struct{}
	streams map[*feed]func(error) // open ones, and what ends them
}

// New makes one. Refusal is why a machine that comes now should go elsewhere; nil: it is welcome. Metrics: shoal_dispatcher_mesh_streams.
func New(env run.Env, view View, b *barrier.Barrier, board *bulletin.Board, refusal func() error) *Server {
	open := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "shoal_dispatcher_mesh_streams", Help: "Meshproxies that are told their tables.",
	})
	env.Metrics.MustRegister(open)
	return &Server{
		view: view, barrier: b, board: board, open: open, refusal: refusal,
		draining: make(chan struct{}), printed: make(chan struct{}), streams: map[*feed]func(error){},
	}
}

// Run keeps the tables, and ends all streams when ctx ends.
func (s *Server) Run(ctx context.Context) error {
	defer s.drainOnce.Do(func() { close(s.draining) })
	select {
	case <-s.view.Confirmed():
	case <-ctx.Done():
		return nil
	}
	q := newQuorum(s.view)
	defer q.quiet.Stop()
	for {
		changed := s.view.Changed()
		s.print(s.view.Snapshot(), q.away)
		if q.await(ctx, changed) != nil || run.Sleep(ctx, pace) != nil {
			return nil
		}
	}
}

func (s *Server) print(snap *state.Snapshot, stale bool) {
	old, _ := s.edition()
	var prev *mesh.Shared
	if old != nil {
		prev = old.shared
	}
	next := &edition{snapshot: snap, shared: mesh.SharedOf(snap, prev), stale: stale}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest = next
	close(s.printed)
	s.printed = make(chan struct{})
}

// edition is the latest, and what is closed at the next.
func (s *Server) edition() (*edition, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest, s.printed
}

// Endpoints streams one machine's tables.
func (s *Server) Endpoints(str stream) error {
	ctx, cancel := context.WithCancelCause(str.Context())
	defer cancel(nil)
	caller, ok := rpc.CallerOf(ctx)
	if !ok {
		return errs.New(errs.Denied, "the mesh's tables need a certificate")
	}
	if err := s.refusal(); err != nil {
		return err
	}
	if err := s.begin(ctx, str); err != nil {
		return err
	}
	s.open.Inc()
	defer s.open.Dec()
	place := s.barrier.Join(caller.Principal.Name)
	defer place.Leave()
	f := &feed{stream: str, board: s.board, node: caller.Principal.Name, place: place}
	defer s.enter(f, cancel)()
	heard := run.Async(ctx, func(context.Context) (struct{}, error) { return struct{}{}, f.receive() })
	for {
		now, printed := s.edition()
		if err := f.send(now); err != nil {
			return err
		}
		select {
		case <-printed:
		case r := <-heard:
			return r.Err
		case <-s.draining:
			return errs.New(errs.Unavailable, "this dispatcher stops: open the stream elsewhere")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// enter notes an open stream.
func (s *Server) enter(f *feed, end func(error)) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[f] = end
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.streams, f)
	}
}

// Carries is what a Server carries.
func (s *Server) Carries() string { return "tables" }

// Carried is how many streams are open.
func (s *Server) Carried() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// HandOver ends as many streams as there are reasons, one for each; which ones is left to chance.
func (s *Server) HandOver(reasons []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, end := range s.streams {
		if len(reasons) == 0 {
			return
		}
		end(reasons[0])
		reasons = reasons[1:]
	}
}

// begin waits for the first message and the first tables.
func (s *Server) begin(ctx context.Context, str stream) error {
	first := run.Async(ctx, func(context.Context) (struct{}, error) {
		_, err := str.Recv()
		return struct{}{}, err
	})
	enough := time.NewTimer(patience)
	defer enough.Stop()
	greeted := false
	for {
		now, printed := s.edition()
		if greeted && now != nil {
			return nil
		}
		select {
		case r := <-first:
			if errors.Is(r.Err, io.EOF) {
				return errs.New(errs.Invalid, "the stream ended before its first message")
			}
			if r.Err != nil {
				return r.Err
			}
			greeted = true
		case <-printed:
		case <-enough.C:
			if !greeted {
				return errs.New(errs.Invalid, "no first message within %s", patience)
			}
			return errs.New(errs.Unavailable, "no state that the store's quorum confirms yet: open the stream elsewhere")
		case <-s.draining:
			return errs.New(errs.Unavailable, "this dispatcher stops: open the stream elsewhere")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
