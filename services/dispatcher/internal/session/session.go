// Package session serves machines: one stream each, fenced by a number.
//
// It owns the order of a session: bind it in the store, wait until the replica holds that very commit and what the machine
// has already applied, then the whole assignment, then differences. A stream has one sender, which is there while there is
// something to send; what others have for it waits in the session's outbox. A Server is safe for concurrent use.
package session

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/bulletin"
	"github.com/shoalproject/shoal/services/dispatcher/internal/liveness"
	"github.com/shoalproject/shoal/services/dispatcher/internal/status"
)

// View is the replica.
type View interface {
	Snapshot() *state.Snapshot
	Changed() <-chan struct{}
	// Confirmed is closed with the next sign that the quorum gives.
	Confirmed() <-chan struct{}
	WaitFor(ctx context.Context, v state.Version) error
}

// Barrier tells how far all live meshproxies are.
type Barrier interface {
	// Applied is the lowest version in force everywhere.
	Applied() state.Version
	// Risen is closed when Applied rises next.
	Risen() <-chan struct{}
}

// Parts are what a server works with.
type Parts struct {
	// Self is the machine id of this dispatcher.
	Self     string
	Env      run.Env
	View     View
	Commit   *commit.Committer
	Statuses *status.Committer
	Payloads Payloads
	Table    *liveness.Table
	Usage    interface {
		// Report takes what a machine's tasks use.
		Report(node string, r *dispatcherv1.UsageReport) error
	}
	Barrier Barrier
	Board   *bulletin.Board
	// Refusal is why a machine that comes now should go elsewhere; nil: it is welcome.
	Refusal func() error
	// Refused hears that a machine does not open a data stream that it was asked for.
	Refused func(node string, m *dispatcherv1.StreamRefusal)
}

// Options are a server's settings.
type Options struct {
	Times liveness.Times
}

type stream = grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]

// Server implements dispatcher.v1.SessionService.
type Server struct {
	dispatcherv1.UnimplementedSessionServiceServer
	Parts

	opts      Options
	began     time.Time // the clock of turns
	open      prometheus.Gauge
	draining  chan struct{}
	drainOnce sync.Once
	lines     lines
	answers   answers
	binding   chan struct{} // holds one token for each session that is about to begin
}

// New makes one. Metrics: shoal_dispatcher_sessions.
func New(parts Parts, opts Options) *Server {
	open := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "shoal_dispatcher_sessions", Help: "Sessions that are open.",
	})
	parts.Env.Metrics.MustRegister(open)
	return &Server{Parts: parts, opts: opts, began: time.Now(), open: open, draining: make(chan struct{}), binding: make(chan struct{}, maxBinding)}
}

// Run tells the sessions of changes that concern them until ctx ends; then it ends all, so that machines go elsewhere at once.
func (s *Server) Run(ctx context.Context) error {
	s.herald(ctx)
	s.drainOnce.Do(func() { close(s.draining) })
	s.lines.endAll(errStops())
	return nil
}

func errStops() error {
	return errs.New(errs.Unavailable, "this dispatcher stops: open the session elsewhere")
}

// openTimeout bounds all that comes between the hello and the first assignment.
const openTimeout = 15 * time.Second

// maxBinding is how many sessions begin at once: each writes to the store, and waits until it comes back.
const maxBinding = 64

// admit waits for a place among those that begin. It is given back once.
func (s *Server) admit(ctx context.Context) (back func(), err error) {
	select {
	case s.binding <- struct{}{}:
		return sync.OnceFunc(func() { <-s.binding }), nil
	case <-s.draining:
		return nil, errStops()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
