// Package gateway is the process that translates: people's REST and gRPC calls, on one port, become calls of the control
// API with the person's identity beside the gateway's own. It keeps nothing.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/replica"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/gateway/internal/announce"
	"github.com/shoalproject/shoal/services/gateway/internal/forward"
	"github.com/shoalproject/shoal/services/gateway/internal/rest"
	"github.com/shoalproject/shoal/services/gateway/internal/stream"
)

const port = 2384

// Config is the process's configuration file.
type Config struct {
	config.Base `yaml:",inline"`
	// MaxBody bounds the body of a REST request; gRPC takes 4 MiB whatever this says. Unit: bytes. Limits: 1024 to 67108864.
	MaxBody int64 `yaml:"max_body"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Base: config.Base{Data: "/var/lib/shoal/gateway"}, MaxBody: 4 << 20}
}

// Validate returns all faults at once.
func (c Config) Validate() error {
	var faults errs.Collector
	faults.Merge("", c.Base.Validate())
	faults.Check(c.MaxBody >= 1024 && c.MaxBody <= 64<<20, "max_body", "must be 1024 to 67108864 bytes")
	return faults.Err("config")
}

// Run wires the gateway and blocks until ctx ends or a part fails.
func Run(ctx context.Context, cfg Config, env run.Env) error {
	p, err := process.Open(env, cfg.Base, authzv1.Role_ROLE_GATEWAY, port)
	if err != nil {
		return fmt.Errorf("open process: %w", err)
	}
	store, err := p.Dial(authzv1.Role_ROLE_STORE)
	if err != nil {
		return fmt.Errorf("dial store: %w", err)
	}
	defer store.Close()
	ca, err := p.Dial(authzv1.Role_ROLE_CA)
	if err != nil {
		return fmt.Errorf("dial ca: %w", err)
	}
	defer ca.Close()
	scheduler, err := p.Dial(authzv1.Role_ROLE_SCHEDULER) // any: active and standbys answer alike
	if err != nil {
		return fmt.Errorf("dial scheduler: %w", err)
	}
	defer scheduler.Close()
	calls := forward.New(p.ID, map[authzv1.Role]grpc.ClientConnInterface{
		authzv1.Role_ROLE_STORE: store, authzv1.Role_ROLE_CA: ca, authzv1.Role_ROLE_SCHEDULER: scheduler,
	})
	if err := calls.Register(p.Server.GRPC()); err != nil {
		return fmt.Errorf("offer services: %w", err)
	}
	streams, closeStreams, err := offerStreams(p, calls)
	if err != nil {
		return err
	}
	defer closeStreams()
	rules, err := p.Server.Registry()
	if err != nil {
		return err
	}
	web, err := rest.New(ctx, calls, rules, cfg.MaxBody, streams)
	if err != nil {
		return err
	}
	p.Server.HandleHTTP(web)
	// Who is where and who is refused: all that a gateway may watch.
	view := replica.New(p.Env, storev1.NewWatchServiceClient(store),
		typesv1.Kind_KIND_CLUSTER, typesv1.Kind_KIND_MEMBER, typesv1.Kind_KIND_DENIAL)

	p.Server.TurnAway(leaving{p})
	p.Burden = process.Burden{
		Load: p.CallsAMinute(),
		Busy: func() bool { return p.Server.Load().Connections > 0 },
	}

	g := run.NewGroup(p.Env.Log)
	p.Go(g, process.StorePart)
	g.Go("replica", view.Run)
	g.Go("streams", streams.Run)
	g.Go("follow", func(ctx context.Context) error { return p.Follow(ctx, view) })
	g.Go("announce", announce.New(p, controlv1.NewMemberServiceClient(store)).Run)
	return g.Wait(ctx)
}

// offerStreams offers what goes to dispatchers: output, figures, commands and files of tasks, and the volumes of nodes.
func offerStreams(p *process.Process, calls *forward.Forwarder) (s *stream.Server, done func(), err error) {
	all, err := p.Dial(authzv1.Role_ROLE_DISPATCHER)
	if err != nil {
		return nil, nil, fmt.Errorf("dial dispatchers: %w", err)
	}
	s = stream.New(stream.Parts{
		Env: p.Env, Self: p.ID, Directory: p.Directory, Any: all, Control: calls,
		Dial: func(address string) (*grpc.ClientConn, error) {
			return p.DialAddress(address, authzv1.Role_ROLE_DISPATCHER)
		},
	})
	if err := s.Register(p.Server.GRPC()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("offer streams: %w", err), all.Close())
	}
	return s, func() { _ = all.Close() }, nil // nothing is under way on it any more
}

// leaving is when a gateway turns people away: when it is drained and there is another one. Whoever drains the last by force
// must still be able to take that back.
type leaving struct{ *process.Process }

// Wanted implements rpc.Drain. A drained member is in the directory only when all of its role are.
func (l leaving) Wanted() bool {
	return l.Drain.Wanted() && !slices.ContainsFunc(l.Directory.Entries(authzv1.Role_ROLE_GATEWAY), func(e *cav1.DirectoryEntry) bool {
		return e.GetMachineId() == l.ID.Name
	})
}

// Changed implements rpc.Drain.
func (l leaving) Changed() <-chan struct{} { return l.Drain.Changed() }
