// Package parts is the seven processes of a machine as functions: each with a config and a folder of its own below one
// folder, and an env of its own, as if the others were elsewhere.
//
// It owns where things are. It must never know how a process works: it calls Run, and, for what a node's processes leave on
// the machine, Reset. A Place is a value; its methods are safe for concurrent use.
package parts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	"github.com/shoalproject/shoal/services/agent"
	"github.com/shoalproject/shoal/services/ca"
	"github.com/shoalproject/shoal/services/dispatcher"
	"github.com/shoalproject/shoal/services/gateway"
	"github.com/shoalproject/shoal/services/meshproxy"
	"github.com/shoalproject/shoal/services/scheduler"
	"github.com/shoalproject/shoal/services/store"
)

const (
	// RunDir is for what ends with the machine's power.
	RunDir = "/run/shoal-dev"
	// Namespace is ours in containerd; a shoal of packages has another one.
	Namespace = "shoal-dev"
)

// Place is where the processes are and what they use.
type Place struct {
	// Root is put before every path of data, so that the folder below it is laid out as that of a machine.
	Root string
	// Address is what is advertised, and listened on.
	Address string
	// Containerd is its socket, Snapshotter one that it has.
	Containerd, Snapshotter string
	// LogLevel is that of all processes.
	LogLevel string
}

// Port is where a role listens, and where it does not, 0.
func Port(role authzv1.Role) int {
	switch role {
	case authzv1.Role_ROLE_CA:
		return 2377
	case authzv1.Role_ROLE_STORE:
		return 2381
	case authzv1.Role_ROLE_SCHEDULER:
		return 2382
	case authzv1.Role_ROLE_DISPATCHER:
		return 2383
	case authzv1.Role_ROLE_GATEWAY:
		return 2384
	case authzv1.Role_ROLE_MESHPROXY:
		return 2385
	default:
		return 0
	}
}

// Roles are the processes, in the order in which a person reads them.
func Roles() []authzv1.Role {
	return []authzv1.Role{
		authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_CA, authzv1.Role_ROLE_SCHEDULER, authzv1.Role_ROLE_DISPATCHER,
		authzv1.Role_ROLE_GATEWAY, authzv1.Role_ROLE_MESHPROXY, authzv1.Role_ROLE_AGENT,
	}
}

// Folder has the processes' folders.
func (p Place) Folder() string { return path.Join(p.Root, enroll.DefaultRoot) }

// Data is a process's folder.
func (p Place) Data(role authzv1.Role) string { return path.Join(p.Folder(), identity.RoleName(role)) }

// At is where a role is reached.
func (p Place) At(role authzv1.Role) string {
	return net.JoinHostPort(p.Address, strconv.Itoa(Port(role)))
}

func (p Place) base(role authzv1.Role) config.Base {
	return config.Base{Data: p.Data(role), Advertise: []string{p.Address}, LogLevel: p.LogLevel}
}

func (p Place) agent() agent.Config {
	c := agent.DefaultConfig()
	c.Base = p.base(authzv1.Role_ROLE_AGENT)
	c.Socket, c.Snapshotter, c.Namespace = p.Containerd, p.Snapshotter, Namespace
	c.RunDir, c.MeshSocket, c.BootID = RunDir, path.Join(RunDir, "mesh.sock"), path.Join(RunDir, "boot-id")
	return c
}

// Env is one process's own: its name on every log line, its own metrics, and its own word to whoever started it.
func Env(env run.Env, role authzv1.Role, notify func(state string) error) run.Env {
	env.Log = env.Log.With(slog.String("process", identity.RoleName(role)))
	env.Metrics = prometheus.NewRegistry()
	env.Notify = notify
	return env
}

// Run is one process until ctx ends or a part of it fails.
func (p Place) Run(ctx context.Context, role authzv1.Role, env run.Env) error {
	switch role {
	case authzv1.Role_ROLE_STORE:
		c := store.DefaultConfig()
		c.Base = p.base(role)
		return checked(&c, func() error { return store.Run(ctx, c, store.Env{Env: env}) })
	case authzv1.Role_ROLE_CA:
		c := ca.DefaultConfig()
		c.Base = p.base(role)
		return checked(&c, func() error { return ca.Run(ctx, c, env) })
	case authzv1.Role_ROLE_SCHEDULER:
		c := scheduler.DefaultConfig()
		c.Base = p.base(role)
		return checked(&c, func() error { return scheduler.Run(ctx, c, env) })
	case authzv1.Role_ROLE_DISPATCHER:
		c := dispatcher.DefaultConfig()
		c.Base = p.base(role)
		return checked(&c, func() error { return dispatcher.Run(ctx, c, env) })
	case authzv1.Role_ROLE_GATEWAY:
		c := gateway.DefaultConfig()
		c.Base = p.base(role)
		return checked(&c, func() error { return gateway.Run(ctx, c, env) })
	case authzv1.Role_ROLE_MESHPROXY:
		c := meshproxy.DefaultConfig()
		c.Base = p.base(role)
		c.MeshSocket, c.BootID = path.Join(RunDir, "mesh.sock"), path.Join(RunDir, "boot-id")
		return checked(&c, func() error { return meshproxy.Run(ctx, c, meshproxy.Env{Env: env}) })
	case authzv1.Role_ROLE_AGENT:
		c := p.agent()
		return checked(&c, func() error { return agent.Run(ctx, c, agent.Env{Env: env}) })
	default:
		return errs.New(errs.Internal, "no process has the role %s", role)
	}
}

// checked runs with a config that is valid.
func checked[C any](cfg *C, f func() error) error {
	if err := config.Check(cfg); err != nil {
		return err
	}
	return f()
}

// Reset removes the containers and all else that the processes have made on the machine outside their folders. None of them
// may run. One fault keeps nothing else.
func (p Place) Reset(ctx context.Context, env run.Env) error {
	var faults []error
	quiet := func(string) error { return nil }
	// Containers, then what they were on.
	if err := agent.Reset(ctx, p.agent(), agent.Env{Env: Env(env, authzv1.Role_ROLE_AGENT, quiet)}); err != nil {
		faults = append(faults, fmt.Errorf("remove the containers: %w", err))
	}
	if err := meshproxy.Reset(ctx); err != nil {
		faults = append(faults, fmt.Errorf("remove interfaces and rules: %w", err))
	}
	return errors.Join(faults...)
}
