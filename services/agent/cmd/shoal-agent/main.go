// Command shoal-agent runs on this machine the tasks that the cluster assigned to it. Its containers outlive it.
// `shoal-agent reset` removes them, and all else that it has made; `shoal leave` calls it. `shoal-agent doctor` looks whether
// this machine can run containers. `shoal-agent init` is process 1 of containers that ask for a small init.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent"
)

func main() {
	start := agent.Run
	switch {
	case slices.Equal(os.Args[1:], []string{"reset", "-any"}):
		if err := agent.ResetAny(context.Background(), run.Machine("agent")); err != nil {
			fmt.Fprintln(os.Stderr, "shoal-agent: reset:", err)
			os.Exit(1)
		}
		return
	case len(os.Args) > 1 && os.Args[1] == "init":
		os.Exit(agent.Init(os.Args[2:], os.Stderr))
	case len(os.Args) > 1 && os.Args[1] == "logger":
		os.Exit(agent.Logger(os.Args[2:]))
	case len(os.Args) > 1 && os.Args[1] == "doctor":
		os.Exit(agent.Doctor(context.Background(), run.Machine("agent"), os.Args[2:], os.Stdout, os.Stderr))
	case len(os.Args) > 1 && os.Args[1] == "reset":
		os.Args = append(os.Args[:1:1], os.Args[2:]...)
		start = agent.Reset
	}
	process.Main("agent", agent.DefaultConfig(), func(ctx context.Context, cfg agent.Config, env run.Env) error {
		return start(ctx, cfg, agent.Env{Env: env})
	}, "reset [-any]\n    \tremove the containers and all else that it has made (-any: of any cluster); `shoal leave` calls it",
		"doctor [-config file] [-format json]\n    \tlook whether this machine can run containers")
}
