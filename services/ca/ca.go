// Package ca is the process that vouches: it signs certificates, checks and shows join tokens, and keeps the root's key
// sealed in the store, with a keyset that CA processes hand to each other. Any number of CAs run, all active. It keeps on
// its machine only its own keys; all else is in the store. Bootstrap begins a cluster, offline.
package ca

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/keyset"
	"github.com/shoalproject/shoal/internal/keyset/wrapper"
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/replica"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/ca/internal/issue"
	"github.com/shoalproject/shoal/services/ca/internal/renewissuer"
	"github.com/shoalproject/shoal/services/ca/internal/server"
)

// Config is the process's configuration file.
type Config struct {
	config.Base `yaml:",inline"`
	// JoinRate is how many machines a second may try to join from one address; five times as many at once. Raise it where many
	// machines come from behind one address. Unit: tries a second. Limits: 1 to 10000.
	JoinRate int `yaml:"join_rate"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{JoinRate: 1} }

// Validate returns all faults at once.
func (c Config) Validate() error {
	var f errs.Collector
	f.Merge("", c.Base.Validate())
	f.Check(c.JoinRate >= 1 && c.JoinRate <= 10000, "join_rate", "%d is not in 1 to 10000", c.JoinRate)
	return f.Err("config")
}

// Run wires the CA and blocks until ctx ends or a part fails. It serves the root from the start, and the rest as soon as it
// has reached the store and has the keyset; its health says what it waits for.
func Run(ctx context.Context, cfg Config, env run.Env) error {
	p, err := process.Open(env, cfg.Base, authzv1.Role_ROLE_CA, issue.Port(authzv1.Role_ROLE_CA))
	if err != nil {
		return fmt.Errorf("open process: %w", err)
	}
	wrapKey, err := identity.WrapKey(p.Env.Files, p.Path("wrap.key"), p.Env.Rand)
	if err != nil {
		return fmt.Errorf("wrap key: %w", err)
	}
	conn, err := p.Dial(authzv1.Role_ROLE_STORE)
	if err != nil {
		return fmt.Errorf("dial store: %w", err)
	}
	defer conn.Close()
	commits := commit.New(storev1.NewCommitServiceClient(conn), p.Env.Rand)
	view := replica.New(p.Env, storev1.NewWatchServiceClient(conn),
		typesv1.Kind_KIND_CLUSTER, typesv1.Kind_KIND_NODE, typesv1.Kind_KIND_MEMBER, typesv1.Kind_KIND_DENIAL,
		typesv1.Kind_KIND_CREDENTIAL, typesv1.Kind_KIND_LEASE)
	health := p.Server.Health()

	keys := keyset.NewHolder()
	issuer := issue.New(env) // not p.Env: audit lines are written whatever log_level says
	hands := wrapper.New(p.Env, keysetPlace(), p.ID, wrapKey, keys, commits, health)
	issuing := renewissuer.New(p.Env, p.Path("issuing"), p.ID, issuer, keys, health)
	issuing.Load(p.Keeper.Bundle())
	srv := server.New(server.Parts{Env: p.Env, View: view, Commit: commits, Trust: p.Keeper, Keyset: keys, Issuer: issuer, JoinRate: cfg.JoinRate})
	cav1.RegisterCertificateServiceServer(p.Server.GRPC(), srv)
	cav1.RegisterTokenServiceServer(p.Server.GRPC(), srv)

	p.Burden = process.Burden{
		Load: p.CallsAMinute(),
		Busy: func() bool { return p.Server.Load().Calls > 0 },
	}

	g := run.NewGroup(p.Env.Log)
	p.Go(g, process.StorePart)
	g.Go("replica", view.Run)
	g.Go("follow", func(ctx context.Context) error { return p.Follow(ctx, view) })
	g.Go("announce", func(ctx context.Context) error { return p.Announce(ctx, view, commits) })
	g.Go("keyset", func(ctx context.Context) error { return hands.Run(ctx, view) })
	g.Go("issuing", func(ctx context.Context) error { return issuing.Run(ctx, view) })
	return g.Wait(ctx)
}

// keysetPlace is where the CAs' keyset is kept, wrapped to each of them.
func keysetPlace() wrapper.Place {
	return wrapper.Place{
		Of: func(c *typesv1.Cluster) []*typesv1.WrappedKey { return c.GetAuthority().GetKeyset() },
		Put: func(old *typesv1.Cluster, keys []*typesv1.WrappedKey) *storev1.Put {
			a := proto.CloneOf(old.GetAuthority())
			a.Keyset = keys
			return commit.Put(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: old.GetMeta().GetId()}, Authority: a}), "authority")
		},
	}
}
