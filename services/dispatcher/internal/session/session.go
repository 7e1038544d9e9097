// Package session serves machines: one stream each, fenced by a number.
//
// It owns the order of a session: bind it in the store, wait until the replica holds that very commit and what the machine
// has already applied, then the whole assignment, then differences. A stream has one sender (its handler); what others
// have for it waits in the session's outbox. A Server is safe for concurrent use.
package session

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
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
	HeartbeatPeriod  time.Duration
	HeartbeatTimeout time.Duration
	Times            liveness.Times
}

type stream = grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]

// Server implements dispatcher.v1.SessionService.
type Server struct {
	dispatcherv1.UnimplementedSessionServiceServer
	Parts

	opts      Options
	open      prometheus.Gauge
	draining  chan struct{}
	drainOnce sync.Once
	lines     lines
	binding   chan struct{} // holds one token for each session that is about to begin
}

// New makes one. Metrics: shoal_dispatcher_sessions.
func New(parts Parts, opts Options) *Server {
	open := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "shoal_dispatcher_sessions", Help: "Sessions that are open.",
	})
	parts.Env.Metrics.MustRegister(open)
	return &Server{Parts: parts, opts: opts, open: open, draining: make(chan struct{}), binding: make(chan struct{}, maxBinding)}
}

// Run tells the sessions of changes that concern them until ctx ends; then it ends all, so that machines go elsewhere at once.
func (s *Server) Run(ctx context.Context) error {
	s.herald(ctx)
	s.drainOnce.Do(func() { close(s.draining) })
	return nil
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
		return nil, errs.New(errs.Unavailable, "this dispatcher stops: open the session elsewhere")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// line is one session.
type line struct {
	node   string
	number uint64
	box    *outbox

	describing, feeding errand
}

// Session is one machine's session.
func (s *Server) Session(str stream) error {
	ctx, cancel := context.WithCancelCause(str.Context())
	defer cancel(nil)
	caller, ok := rpc.CallerOf(ctx)
	if !ok {
		return errs.New(errs.Denied, "a session needs a certificate")
	}
	node := caller.Principal.Name

	if err := s.Refusal(); err != nil {
		return err
	}
	// Step 1: hear who it is.
	hello, err := receiveHello(ctx, str)
	if err != nil {
		return err
	}
	if err := checkHello(caller.Principal.Role, hello); err != nil {
		return err
	}
	if s.View.Snapshot().Node(node).GetStatus().GetSession().GetBootId() == hello.GetBootId() {
		s.Table.Knock(node, time.Now())
	}
	// Step 2: bind the session in the store. From here on its number fences all that is said in it. So many do that at once
	// as the store bears; whoever comes in a stampede waits its turn, or comes again.
	reassured := s.reassure(ctx, str)
	defer reassured()
	admitted, err := s.admit(ctx)
	if err != nil {
		return err
	}
	defer admitted()
	number, version, err := s.bind(ctx, node, hello)
	if err != nil {
		return err
	}
	l := &line{node: node, number: number, box: newOutbox()}
	s.Table.Open(node, number, time.Now(), func(reason error) { cancel(reason) })
	defer s.Table.Closed(node, number)
	defer s.lines.enter(l)()
	s.open.Inc()
	defer s.open.Dec()
	log := s.Env.Log.With("node", node, "session", number)
	log.Info("session opened")

	// Step 3: hear it from now on: it beats while it waits for its assignment, and must not be taken for silent.
	heard := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.receive(ctx, str, l) })
	// Step 4: say nothing before the replica holds the session's own commit and what the machine has applied: an older
	// assignment would have it stop what it runs.
	err = s.catchUp(ctx, version, hello)
	admitted()
	reassured() // before the stream has its sender
	if err == nil {
		// Step 5: speak until either side ends it.
		err = s.speak(ctx, str, l, heard)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(err)
	l.describing.wait()
	l.feeding.wait()
	log.Info("session ended", "reason", reason(err))
	return err
}

func reason(err error) string {
	if err != nil {
		return err.Error()
	}
	return "closed by the machine"
}

// speak sends all that goes to the machine. It is the stream's only sender.
func (s *Server) speak(ctx context.Context, str stream, l *line, heard <-chan run.Result[struct{}]) error {
	snap := s.View.Snapshot()
	epoch := snap.Version()
	l.box.told = s.period()
	err := str.Send(&dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_Welcome{
		Welcome: &dispatcherv1.Welcome{
			Session:          l.number,
			HeartbeatPeriod:  durationpb.New(l.box.told),
			HeartbeatTimeout: durationpb.New(s.opts.HeartbeatTimeout),
			ClusterId:        snap.Cluster().GetMeta().GetId(),
		},
	}})
	if err != nil {
		return err
	}
	news := &newsfeed{stream: str, node: l.node, board: s.Board, box: l.box, fetch: func() {
		l.feeding.start(ctx, func(ctx context.Context) { s.feed(ctx, l) })
	}}
	for {
		risen := s.Barrier.Risen()
		snap := s.View.Snapshot()
		if !snap.Version().SameEpoch(epoch) {
			return errs.New(errs.Unavailable, "the store's history was replaced: open a new session")
		}
		if current := snap.Node(l.node).GetStatus().GetSession().GetNumber(); current > l.number {
			return liveness.ErrSuperseded()
		}
		if snap.Node(l.node) == nil {
			return unknownNode(l.node)
		}
		if err := news.send(snap, s.Barrier.Applied()); err != nil {
			return err
		}
		if !news.awaitsBarrier() {
			risen = nil
		}
		if more, err := s.wait(ctx, str, l.box, risen, heard); !more {
			return err
		}
	}
}

// wait answers the machine until there may be something new to tell. It reports false at the end of the session.
func (s *Server) wait(ctx context.Context, str stream, box *outbox, risen <-chan struct{},
	heard <-chan run.Result[struct{}],
) (more bool, err error) {
	for {
		if err := box.flush(str, s.period()); err != nil {
			return false, err
		}
		select {
		case <-box.news:
			return true, nil
		case <-risen:
			return true, nil
		case <-box.wake:
		case r := <-heard:
			return false, r.Err
		case <-s.draining:
			return false, errs.New(errs.Unavailable, "this dispatcher stops: open the session elsewhere")
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}
