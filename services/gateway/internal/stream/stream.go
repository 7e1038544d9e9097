// Package stream passes on the calls of people that are streams: output, figures, commands and files of tasks.
//
// It owns the way to the dispatcher that holds the session of a task's machine, and the answer for many tasks that is put
// together from those of their machines. It keeps nothing but what is on its way, and looks into no message that it passes
// on. A Server is safe for concurrent use.
package stream

import (
	"context"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// Parts are what a Server works with.
type Parts struct {
	Env       run.Env
	Self      identity.ID
	Directory Directory
	// Any reaches the dispatchers in turn, Dial one of them.
	Any  grpc.ClientConnInterface
	Dial func(address string) (*grpc.ClientConn, error)
	// Control passes calls on to the control API, for the person whose call is being served.
	Control grpc.ClientConnInterface
}

// Server offers logs.v1 to people.
type Server struct {
	env         run.Env
	self        identity.ID
	dispatchers *dispatchers
	control     grpc.ClientConnInterface
	tasks       *run.Spawner
}

// New makes one.
func New(p Parts) *Server {
	return &Server{
		env: p.Env, self: p.Self, tasks: run.NewSpawner(p.Env.Log), control: p.Control,
		dispatchers: &dispatchers{directory: p.Directory, dial: p.Dial, any: p.Any, conns: map[string]dialled{}},
	}
}

// Run keeps the connections, and the reading of many machines, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	g := run.NewGroup(s.env.Log)
	g.Go("dispatchers", s.dispatchers.run)
	g.Go("readers", s.tasks.Run)
	return g.Wait(ctx)
}

// Register offers all services on a gRPC server.
func (s *Server) Register(server grpc.ServiceRegistrar) error {
	logsv1.RegisterLogServiceServer(server, s.Logs())
	logsv1.RegisterStatsServiceServer(server, stats{Server: s})
	logsv1.RegisterVolumeServiceServer(server, s.Volumes())
	return s.registerCarried(server)
}

// Logs is offered as REST, too.
func (s *Server) Logs() logsv1.LogServiceServer { return logs{Server: s} }

// Volumes is offered as REST, too.
func (s *Server) Volumes() logsv1.VolumeServiceServer { return volumes{Server: s} }

// as makes the context of a call for the person whose call is being served.
func (s *Server) as(ctx context.Context) (context.Context, error) {
	caller, ok := rpc.CallerOf(ctx)
	if !ok {
		return nil, errs.New(errs.Denied, "a call needs a client certificate")
	}
	return rpc.Forward(ctx, caller, s.self), nil
}
