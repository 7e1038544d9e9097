package agent

import (
	"context"
	"errors"
	"io/fs"
	"path"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	"github.com/shoalproject/shoal/services/agent/internal/attach"
	"github.com/shoalproject/shoal/services/agent/internal/executor"
	"github.com/shoalproject/shoal/services/agent/internal/memfs"
	"github.com/shoalproject/shoal/services/agent/internal/network"
	"github.com/shoalproject/shoal/services/agent/internal/reset"
	"github.com/shoalproject/shoal/services/agent/internal/volume"
)

// Reset removes from the machine all that an agent of this cluster has made. The agent must not run.
func Reset(ctx context.Context, cfg Config, env Env) error {
	p, err := process.Open(env.Env, cfg.Base, authzv1.Role_ROLE_AGENT, noPort)
	if err != nil {
		return err
	}
	env.Env = p.Env
	closeReal, err := env.fill(cfg, p)
	defer closeReal()
	if err != nil {
		return err
	}
	return reset.Machine{Log: env.Log, Executor: env.runtime(cfg), Network: env.Network, Files: env.Vault}.Run(ctx)
}

// ResetAny removes what agents of any cluster have made, without a config, an identity or a journal: `shoal node reset` takes
// a machine back whatever state it is in. Without containerd there are no containers to remove.
func ResetAny(ctx context.Context, env run.Env) error {
	cfg, err := config.Load(env.Files, "/etc/shoal/agent.yaml", DefaultConfig())
	if err != nil {
		cfg = DefaultConfig() // absent or broken: both are why this is called
	}
	net, files := network.New(cfg.RunDir), memfs.New(path.Join(cfg.RunDir, "secrets"))
	volumes, pins := cfg.volumes()
	if _, err := env.Files.Stat(cfg.Socket); errors.Is(err, fs.ErrNotExist) {
		nobody := func(string) bool { return false }
		return errors.Join(net.Sweep(ctx, nobody), files.Sweep(ctx, nobody), volume.New(volumes, pins).Sweep(nobody), attach.Clear(cfg.guests()))
	}
	x, err := executor.New(executor.Config{
		Socket: cfg.Socket, Namespace: cfg.Namespace, Snapshotter: cfg.Snapshotter, Pull: cfg.pulls(),
		Logs: path.Join(cfg.Folder("agent"), "logs"), Volumes: volumes, Pins: pins, Parallel: cfg.Parallel,
	}, env.Log)
	if err != nil {
		return err
	}
	err = reset.Machine{Log: env.Log, Executor: x, Network: net, Files: files}.Run(ctx)
	return errors.Join(err, attach.Clear(cfg.guests()), x.Close())
}
