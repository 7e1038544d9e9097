package agent

import (
	"context"

	"github.com/shoalproject/shoal/internal/process"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	"github.com/shoalproject/shoal/services/agent/internal/reset"
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
	return reset.Machine{Log: env.Log, Executor: env.Executor, Network: env.Network}.Run(ctx)
}
