// Package endpoint serves meshproxies: the tables of their machine, whole first, then differences.
//
// It owns when a meshproxy counts as up to date: when it has answered for the last change that was sent to it, every later
// revision that changed nothing for it is in force as well. A stream has one sender, its handler.
package endpoint

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/barrier"
	"github.com/shoalproject/shoal/services/dispatcher/internal/mesh"
	"github.com/shoalproject/shoal/services/dispatcher/internal/session"
)

// View is the replica.
type View interface {
	Snapshot() *state.Snapshot
	Changed() <-chan struct{}
}

type stream = grpc.BidiStreamingServer[dispatcherv1.EndpointsRequest, dispatcherv1.EndpointsResponse]

// Server implements dispatcher.v1.EndpointService.
type Server struct {
	dispatcherv1.UnimplementedEndpointServiceServer

	view    View
	barrier *barrier.Barrier

	draining  chan struct{}
	drainOnce sync.Once

	mu     sync.Mutex // guards shared
	shared *mesh.Shared
}

// New makes one.
func New(view View, b *barrier.Barrier) *Server {
	return &Server{view: view, barrier: b, draining: make(chan struct{})}
}

// Run ends all streams when ctx ends.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.drainOnce.Do(func() { close(s.draining) })
	return nil
}

// sharedOf computes the part that all machines share once a snapshot.
func (s *Server) sharedOf(snap *state.Snapshot) *mesh.Shared {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shared == nil || s.shared.Version != snap.Version() {
		s.shared = mesh.SharedOf(snap, s.shared)
	}
	return s.shared
}

// Endpoints streams one machine's tables.
func (s *Server) Endpoints(str stream) error {
	ctx, cancel := context.WithCancel(str.Context())
	defer cancel()
	caller, ok := rpc.CallerOf(ctx)
	if !ok {
		return errs.New(errs.Denied, "the mesh's tables need a certificate")
	}
	if _, err := str.Recv(); err != nil {
		return err
	}
	place := s.barrier.Join()
	defer place.Leave()
	f := &feed{stream: str, server: s, node: caller.Principal.Name, place: place}
	heard := run.Async(ctx, func(context.Context) (struct{}, error) { return struct{}{}, f.receive() })
	for {
		changed := s.view.Changed()
		if err := f.send(s.view.Snapshot()); err != nil {
			return err
		}
		select {
		case <-changed:
		case r := <-heard:
			return r.Err
		case <-s.draining:
			return errs.New(errs.Unavailable, "this dispatcher stops: open the stream elsewhere")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// feed is what one meshproxy was sent and has answered.
type feed struct {
	stream stream
	server *Server
	node   string
	place  *barrier.Stream

	// Owned by the sender.
	tables    *mesh.Tables
	trust     *dispatcherv1.Trust
	directory *cav1.Directory

	mu    sync.Mutex // guards below
	sent  uint64     // revision of the last change sent
	seen  uint64     // revision up to which nothing else changed for this machine
	acked uint64     // revision of the last change in force
}

func (f *feed) receive() error {
	for {
		m, err := f.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f.mu.Lock()
		f.acked = max(f.acked, m.GetApplied().GetRevision())
		f.mu.Unlock()
		f.report()
	}
}

// report tells the barrier how far this meshproxy is.
func (f *feed) report() {
	f.mu.Lock()
	inForce := f.acked
	if f.acked >= f.sent && f.sent != 0 {
		inForce = max(f.seen, f.acked)
	}
	f.mu.Unlock()
	f.place.Report(inForce)
}

func (f *feed) send(s *state.Snapshot) error {
	r := f.difference(s)
	revision := s.Version().Revision
	f.mu.Lock()
	f.seen = revision
	if r != nil {
		f.sent = revision
	}
	f.mu.Unlock()
	if r == nil {
		f.report()
		return nil
	}
	r.Version = s.Version().Proto()
	return f.stream.Send(r)
}

// difference is what the machine does not know yet, nil if nothing.
func (f *feed) difference(s *state.Snapshot) *dispatcherv1.EndpointsResponse {
	next := mesh.Of(s, f.node, f.server.sharedOf(s), f.tables)
	var r *dispatcherv1.EndpointsResponse
	if f.tables == nil {
		r = mesh.Full(next)
	} else {
		r = mesh.Diff(f.tables, next)
	}
	f.tables = next
	trust, dir := session.TrustOf(s), directory.FromMembers(s.Members())
	newTrust, newDirectory := !proto.Equal(trust, f.trust), !proto.Equal(dir, f.directory)
	if r == nil && (newTrust || newDirectory) {
		r = &dispatcherv1.EndpointsResponse{DataPort: next.DataPort, MachineNetwork: next.MachineNetwork}
	}
	if newTrust {
		r.Trust, f.trust = trust, trust
	}
	if newDirectory {
		r.Directory, f.directory = dir, dir
	}
	return r
}
