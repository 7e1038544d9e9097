// Command shoal-agent runs on this machine the tasks that the cluster assigned to it. Its containers outlive it.
// `shoal-agent reset` removes them, and all else that it has made; `shoal leave` calls it.
package main

import (
	"context"
	"os"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent"
)

func main() {
	start := agent.Run
	if len(os.Args) > 1 && os.Args[1] == "reset" {
		os.Args = append(os.Args[:1:1], os.Args[2:]...)
		start = agent.Reset
	}
	run.Main("agent", agent.DefaultConfig(), func(ctx context.Context, cfg agent.Config, env run.Env) error {
		return start(ctx, cfg, agent.Env{Env: env})
	}, "reset\n    \tremove the containers and all else that it has made; `shoal leave` calls it")
}
