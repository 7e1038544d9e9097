package session

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/liveness"
)

// line is one session.
type line struct {
	node   string
	stream stream
	box    *outbox
	end    func(error)     // ends the session, for that reason
	ended  <-chan struct{} // is closed then
	cause  func() error    // the reason
	bound  chan struct{}

	hello  *dispatcherv1.Hello // until the session is bound
	number uint64              // since then
	hears  bool                // another patience than its welcome's
	phase  float64             // since then: when in each period it has its turn to beat
	told   liveness.Pace       // what the machine knows; the sender's
	leave  func()              // since then: takes it from the open ones
	news   *newsfeed           // the sender's, once it has welcomed the machine

	sending, describing, feeding errand
}

// errClosed is the end of a session that its machine has closed.
var errClosed = errors.New("closed by the machine")

// Session is one machine's session. The goroutine that gRPC gives us only waits, with little on its stack: thousands of them
// do for as long as their sessions last, and a stack that was needed once, to bind or to send, would stay as large.
func (s *Server) Session(str stream) error {
	begun := run.Async(str.Context(), func(ctx context.Context) (*line, error) { return s.enter(ctx, str) })
	r := <-begun
	if r.Err != nil {
		return r.Err
	}
	<-r.Value.ended
	r = <-run.Async(str.Context(), func(context.Context) (*line, error) { return nil, s.close(r.Value) })
	return r.Err
}

// enter begins to hear a machine.
func (s *Server) enter(ctx context.Context, str stream) (*line, error) {
	caller, ok := rpc.CallerOf(ctx)
	if !ok {
		return nil, errs.New(errs.Denied, "a session needs a certificate")
	}
	if err := s.Refusal(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	l := &line{node: caller.Principal.Name, stream: str, box: newOutbox(), end: cancel, ended: ctx.Done(), bound: make(chan struct{})}
	l.cause = func() error { return context.Cause(ctx) }
	l.box.bell = func() { l.sending.start(ctx, func(ctx context.Context) { s.say(ctx, l) }) }
	failed := func(err error) { l.end(s.blame(l, err)) }
	l.sending.failed, l.describing.failed, l.feeding.failed = failed, failed, failed
	run.Beside(ctx, func(ctx context.Context) error { return s.hear(ctx, l, caller) }, failed)
	return l, nil
}

// blame makes of a panic what its machine may hear, when our log has it. Any other reason stays as it is.
func (s *Server) blame(l *line, err error) error {
	p, panicked := errors.AsType[*run.PanicError](err)
	if !panicked {
		return err
	}
	s.Env.Log.Error("session panicked", "node", l.node, "panic", p.Value, "stack", string(p.Stack))
	return errs.New(errs.Internal, "the session failed by a fault of the server; its log has more")
}

// close waits for what is under way in a session that has ended, and tells why it has.
func (s *Server) close(l *line) error {
	l.sending.wait()
	l.describing.wait()
	l.feeding.wait()
	reason := l.cause()
	if l.leave != nil {
		s.open.Dec()
		l.leave()
		s.Table.Closed(l.node, l.number)
		s.Env.Log.Info("session ended", "node", l.node, "session", l.number, "reason", reason.Error())
	}
	if errors.Is(reason, errClosed) {
		return nil
	}
	return reason
}

// hear hears a machine until its stream ends, and says why. First it hears who it is.
func (s *Server) hear(ctx context.Context, l *line, caller rpc.Caller) error {
	hello, err := receiveHello(l)
	if err != nil {
		return err
	}
	if err := checkHello(caller.Principal.Role, hello); err != nil {
		return err
	}
	l.hello = hello
	l.box.bell()
	// It beats while it waits for its assignment, and must not be taken for silent; but what is said before the session has its
	// number is not fenced.
	select {
	case <-l.bound:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.receive(ctx, l)
}

// say is the stream's only sender. It returns when nothing waits.
func (s *Server) say(ctx context.Context, l *line) {
	if ctx.Err() != nil {
		return
	}
	if l.news == nil {
		if err := s.begin(ctx, l); err != nil {
			l.end(err)
			return
		}
	}
	if err := s.tell(l); err != nil {
		l.end(err)
	}
}

// begin binds the session and welcomes the machine.
func (s *Server) begin(ctx context.Context, l *line) error {
	hello := l.hello
	l.hello, l.hears = nil, hello.GetHearsTimeout()
	if s.View.Snapshot().Node(l.node).GetStatus().GetSession().GetBootId() == hello.GetBootId() {
		s.Table.Knock(l.node, time.Now())
	}
	// Step 1: bind the session in the store. From here on its number fences all that is said in it. So many do that at once
	// as the store bears; whoever comes in a stampede waits its turn, or comes again.
	reassured := s.reassure(ctx, l)
	defer reassured()
	admitted, err := s.admit(ctx)
	if err != nil {
		return err
	}
	defer admitted()
	number, version, err := s.bind(ctx, l.node, hello)
	if err != nil {
		return err
	}
	l.number = number
	s.Table.Open(l.node, number, time.Now(), l.end)
	l.leave = s.lines.enter(l)
	s.open.Inc()
	s.Env.Log.Info("session opened", "node", l.node, "session", number)
	close(l.bound) // it is heard from now on
	select {
	case <-s.draining: // all that were open have been ended
		return errStops()
	default:
	}
	// Step 2: say nothing before the replica holds the session's own commit and what the machine has applied: an older
	// assignment would have it stop what it runs.
	if err := s.catchUp(ctx, version, hello); err != nil {
		return err
	}
	admitted()
	reassured() // before the stream has its sender
	return s.welcome(ctx, l)
}

// welcome begins to speak. All that is new goes out after it.
func (s *Server) welcome(ctx context.Context, l *line) error {
	snap := s.View.Snapshot()
	l.told = s.pace(l)
	s.Table.Bear(l.node, l.number, l.told.Patience)
	err := l.stream.Send(&dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_Welcome{
		Welcome: &dispatcherv1.Welcome{
			Session:          l.number,
			HeartbeatPeriod:  durationpb.New(l.told.Period),
			HeartbeatTimeout: durationpb.New(l.told.Patience),
			ClusterId:        snap.Cluster().GetMeta().GetId(),
		},
	}})
	l.news = &newsfeed{stream: l.stream, node: l.node, board: s.Board, box: l.box, epoch: snap.Version(), fetch: func() {
		l.feeding.start(ctx, func(ctx context.Context) { s.feed(ctx, l) })
	}}
	l.box.mu.Lock()
	l.box.news = true
	l.box.mu.Unlock()
	return err
}

// tell sends what is new and what waits.
func (s *Server) tell(l *line) error {
	if l.box.takeNews() {
		if err := s.tellNews(l); err != nil {
			return err
		}
	}
	return l.box.flush(l.stream, func(seq uint64) *dispatcherv1.HeartbeatAck {
		return l.ack(seq, s.pace(l), time.Since(s.began), func(patience time.Duration) { s.Table.Bear(l.node, l.number, patience) })
	})
}

func (s *Server) tellNews(l *line) error {
	for {
		snap := s.View.Snapshot()
		if !snap.Version().SameEpoch(l.news.epoch) {
			return errs.New(errs.Unavailable, "the store's history was replaced: open a new session")
		}
		n := snap.Node(l.node)
		if n == nil {
			return unknownNode(l.node)
		}
		if n.GetStatus().GetSession().GetNumber() > l.number {
			return liveness.ErrSuperseded()
		}
		if err := l.news.send(snap, s.Barrier.Applied()); err != nil {
			return err
		}
		// Who waits for the barrier is rung when it rises. It may have risen before we were noted.
		if first := s.lines.awaitBarrier(l, l.news.awaitsBarrier()); !first {
			return nil
		}
	}
}
