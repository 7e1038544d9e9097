// Package splice joins a person's call, which a gateway brings, with the data stream that the agent of the task's machine
// opens for it.
//
// It owns the calls that wait for their agent and those that are joined. It never looks into a message beyond the task or node that
// the first one names, keeps at most a few messages of each call, and ends both sides with either. Whom a call may be
// joined by stands in the session that it was asked on: no other machine can. A Server is safe for concurrent use.
package splice

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/place"
)

const (
	// joinLimit is how long an agent may take to open a data stream. A gateway that asks several machines names those that
	// do not answer soon after.
	joinLimit = 5 * time.Second
	// maxLinks bounds the calls of one machine that are open at once.
	maxLinks = 256
	// idBytes make a stream's id: who knows it may join.
	idBytes = 16
)

// View is the replica.
type View interface {
	Snapshot() *state.Snapshot
	Confirmed() <-chan struct{}
}

// Sessions are the machines whose sessions this dispatcher holds.
type Sessions interface {
	// Ask puts a message into a machine's session. Unavailable: there is none.
	Ask(node string, open *dispatcherv1.OpenStream) error
}

// Server joins calls and streams.
type Server struct {
	dispatcherv1.UnimplementedStreamServiceServer

	self     string
	env      run.Env
	view     View
	sessions Sessions
	draining <-chan struct{}
	open     prometheus.Gauge

	mu    sync.Mutex       // guards both
	links map[string]*link // by stream id, until their agent has come
	count map[string]int   // of open calls, by node
}

// New makes one that ends all calls when draining is closed. Metrics: shoal_dispatcher_streams.
func New(self string, env run.Env, view View, sessions Sessions, draining <-chan struct{}) *Server {
	open := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "shoal_dispatcher_streams", Help: "Calls of people that are carried to agents.",
	})
	env.Metrics.MustRegister(open)
	return &Server{
		self: self, env: env, view: view, sessions: sessions, draining: draining, open: open,
		links: map[string]*link{}, count: map[string]int{},
	}
}

// target is whom a call is for.
type target struct {
	node string
	task string // empty: the call is about the node
}

func unnamed() error { return errs.New(errs.Invalid, "the first request must name a task or a node") }

// locate finds the machine that a request is about, if this dispatcher holds its session. What the replica does not know may be
// newer than it: then it looks once more when the quorum has confirmed that there is nothing newer.
func (s *Server) locate(ctx context.Context, first proto.Message) (target, error) {
	t, err := s.look(first)
	if err == nil {
		return t, nil
	}
	select {
	case <-s.view.Confirmed():
		return s.look(first)
	case <-s.draining:
		return target{}, stops()
	case <-ctx.Done():
		return target{}, context.Cause(ctx)
	}
}

func (s *Server) look(first proto.Message) (target, error) {
	snap := s.view.Snapshot()
	switch named := first.(type) {
	case interface{ GetTask() string }:
		if named.GetTask() == "" {
			return target{}, unnamed()
		}
		t, err := place.One(snap, named.GetTask())
		if err != nil {
			return target{}, err
		}
		p := place.Of(snap, t)
		if p.GetAway() != "" {
			return target{}, errs.New(errs.Unavailable, "task %s: %s", p.GetName(), p.GetAway())
		}
		return s.here(target{p.GetNodeId(), p.GetTaskId()}, p.GetDispatcherId())
	case interface{ GetNode() string }:
		if named.GetNode() == "" {
			return target{}, unnamed()
		}
		n, err := place.Node(snap, named.GetNode())
		if err != nil {
			return target{}, err
		}
		return s.here(target{node: n.GetMeta().GetId()}, n.GetStatus().GetSession().GetDispatcherId())
	}
	return target{}, unnamed()
}

// here says who holds the session, if that is another dispatcher.
func (s *Server) here(t target, dispatcher string) (target, error) {
	if dispatcher != s.self {
		return target{}, directory.Moved(dispatcher)
	}
	return t, nil
}

func stops() error { return errs.New(errs.Unavailable, "this dispatcher stops: ask another one") }

// connect asks the machine for a data stream and waits until it has come.
func (s *Server) connect(ctx context.Context, t target, method string) (*link, func(), error) {
	raw := make([]byte, idBytes)
	if _, err := s.env.Rand.Read(raw); err != nil {
		return nil, nil, err
	}
	id, l := string(raw), newLink(t.node)
	if !s.enter(id, l) {
		return nil, nil, errs.New(errs.Exhausted, "the task's machine has %d open streams already", maxLinks)
	}
	leave := func() { s.leave(id, l) }
	err := s.sessions.Ask(t.node, &dispatcherv1.OpenStream{StreamId: raw, Method: method, TaskId: t.task})
	if err != nil {
		leave()
		return nil, nil, err
	}
	patience := time.NewTimer(joinLimit)
	defer patience.Stop()
	select {
	case <-l.joined:
		return l, leave, nil
	case <-l.ended:
		err = l.err
	case <-patience.C:
		err = errs.New(errs.Unavailable, "the task's machine has not answered within %s", joinLimit)
	case <-s.draining:
		err = stops()
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	l.end(err)
	leave()
	return nil, nil, err
}

func (s *Server) enter(id string, l *link) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count[l.node] >= maxLinks {
		return false
	}
	s.count[l.node]++
	s.links[id] = l
	s.open.Inc()
	return true
}

func (s *Server) leave(id string, l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, id)
	if s.count[l.node]--; s.count[l.node] == 0 {
		delete(s.count, l.node)
	}
	s.open.Dec()
}

// take gives a waiting call to the machine that it was asked of, once.
func (s *Server) take(id, node string) *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.links[id]
	if l == nil || l.node != node {
		return nil
	}
	delete(s.links, id)
	return l
}

// Refused hears that a machine does not open a stream.
func (s *Server) Refused(node string, m *dispatcherv1.StreamRefusal) {
	if l := s.take(string(m.GetStreamId()), node); l != nil {
		l.end(errs.New(errs.Exhausted, "the task's machine refuses: %.200s", m.GetReason()))
	}
}
