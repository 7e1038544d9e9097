// Package session serves machines: one stream each, fenced by a number.
//
// It owns the order of a session: bind it in the store, wait until the replica holds that very commit and what the machine
// has already applied, then the whole assignment, then differences. A stream has one sender (its handler); what others
// have for it waits in the session's outbox.
package session

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/liveness"
	"github.com/shoalproject/shoal/services/dispatcher/internal/status"
)

// View is the replica.
type View interface {
	Snapshot() *state.Snapshot
	Changed() <-chan struct{}
	WaitFor(ctx context.Context, v state.Version) error
}

// Barrier tells how far all live meshproxies are.
type Barrier interface {
	// Applied is the lowest revision in force everywhere.
	Applied() uint64
	// Risen is closed when Applied rises next.
	Risen() <-chan struct{}
}

// Options are a server's settings.
type Options struct {
	HeartbeatPeriod  time.Duration
	HeartbeatTimeout time.Duration
	Times            liveness.Times
}

// Server implements dispatcher.v1.SessionService.
type Server struct {
	dispatcherv1.UnimplementedSessionServiceServer

	self     string // machine id of this dispatcher
	env      run.Env
	view     View
	commit   *commit.Committer
	statuses *status.Committer
	table    *liveness.Table
	barrier  Barrier
	opts     Options

	draining  chan struct{}
	drainOnce sync.Once
}

// New makes one.
func New(self string, env run.Env, view View, c *commit.Committer, statuses *status.Committer,
	table *liveness.Table, barrier Barrier, opts Options,
) *Server {
	return &Server{
		self: self, env: env, view: view, commit: c, statuses: statuses, table: table, barrier: barrier, opts: opts,
		draining: make(chan struct{}),
	}
}

// Run ends all sessions when ctx ends, so that machines go elsewhere at once.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.drainOnce.Do(func() { close(s.draining) })
	return nil
}

// helloTimeout bounds the wait for a stream's first message, openTimeout all that comes before the first assignment.
const (
	helloTimeout = 5 * time.Second
	openTimeout  = 15 * time.Second
)

// Session is one machine's session.
func (s *Server) Session(stream grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	caller, ok := rpc.CallerOf(ctx)
	if !ok {
		return errs.New(errs.Denied, "a session needs a certificate")
	}
	node := caller.Principal.Name

	// Step 1: hear who it is.
	hello, err := receiveHello(ctx, stream)
	if err != nil {
		return err
	}
	if err := checkHello(caller.Principal.Role, hello); err != nil {
		return err
	}
	// Step 2: bind the session in the store. From here on its number fences all that is said in it.
	number, version, err := s.bind(ctx, node, hello)
	if err != nil {
		return err
	}
	box := newOutbox()
	s.table.Open(node, number, time.Now(), func() { cancel(errSuperseded) })
	defer s.table.Closed(node, number)
	log := s.env.Log.With("node", node, "session", number)
	log.Info("session opened")

	// Step 3: say nothing before the replica holds the session's own commit and what the machine has applied: an older
	// assignment would have it stop what it runs.
	if err := s.catchUp(ctx, version, hello); err != nil {
		return err
	}
	// Step 4: hear and speak until either side ends it.
	heard := run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.receive(ctx, stream, node, number, box)
	})
	err = s.speak(ctx, stream, node, number, box, heard)
	log.Info("session ended", "reason", reason(ctx, err))
	return err
}

var errSuperseded = errs.New(errs.Precondition, "session superseded: open a new one")

func reason(ctx context.Context, err error) string {
	if cause := context.Cause(ctx); cause != nil {
		return cause.Error()
	}
	if err != nil {
		return err.Error()
	}
	return "closed by the machine"
}

func receiveHello(ctx context.Context, stream grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse],
) (*dispatcherv1.Hello, error) {
	first := run.Async(ctx, func(context.Context) (*dispatcherv1.SessionRequest, error) { return stream.Recv() })
	patience := time.NewTimer(helloTimeout)
	defer patience.Stop()
	select {
	case r := <-first:
		if r.Err != nil {
			return nil, r.Err
		}
		if h := r.Value.GetHello(); h != nil {
			return h, nil
		}
		return nil, errs.New(errs.Invalid, "the first message of a session must be a hello")
	case <-patience.C:
		return nil, errs.New(errs.Invalid, "no hello within %s", helloTimeout)
	}
}

func checkHello(role authzv1.Role, h *dispatcherv1.Hello) error {
	var faults []errs.Fault
	if h.GetBootId() == "" || len(h.GetBootId()) > 64 {
		faults = append(faults, errs.Fault{Field: "hello.boot_id", Reason: "must be 1 to 64 characters"})
	}
	if len(h.GetAddresses()) == 0 || len(h.GetAddresses()) > 16 {
		faults = append(faults, errs.Fault{Field: "hello.addresses", Reason: "must be 1 to 16"})
	}
	want := dispatcherv1.SessionKind_SESSION_KIND_NODE
	if role == authzv1.Role_ROLE_MESHPROXY {
		want = dispatcherv1.SessionKind_SESSION_KIND_INGRESS
	}
	if h.GetKind() != want {
		faults = append(faults, errs.Fault{Field: "hello.kind", Reason: "is not this role's: want " + want.String()})
	}
	if len(faults) > 0 {
		return errs.Faults("open session", faults...)
	}
	return nil
}

// speak sends all that goes to the machine. It is the stream's only sender.
func (s *Server) speak(ctx context.Context,
	stream grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse],
	node string, number uint64, box *outbox, heard <-chan run.Result[struct{}],
) error {
	err := stream.Send(&dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_Welcome{
		Welcome: &dispatcherv1.Welcome{
			Session:          number,
			HeartbeatPeriod:  durationpb.New(s.opts.HeartbeatPeriod),
			HeartbeatTimeout: durationpb.New(s.opts.HeartbeatTimeout),
			ClusterId:        s.view.Snapshot().Cluster().GetMeta().GetId(),
		},
	}})
	if err != nil {
		return err
	}
	news := &newsfeed{stream: stream, node: node}
	for {
		changed, risen := s.view.Changed(), s.barrier.Risen()
		snap := s.view.Snapshot()
		if current := snap.Node(node).GetStatus().GetSession().GetNumber(); current > number {
			return errSuperseded
		}
		if err := news.send(snap, s.barrier.Applied()); err != nil {
			return err
		}
		for wait := true; wait; {
			if err := box.flush(stream); err != nil {
				return err
			}
			select {
			case <-changed:
				wait = false
			case <-risen:
				wait = false
			case <-box.wake:
			case r := <-heard:
				return r.Err
			case <-s.draining:
				return errs.New(errs.Unavailable, "this dispatcher stops: open the session elsewhere")
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}
