// Command shoal-meshproxy connects: it answers on every published port and keeps the machine's networks in the kernel.
// `shoal-meshproxy reset` removes from the kernel all that shoal has made, and nothing else; `shoal leave` calls it.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "reset" {
		if err := reset(); err != nil {
			fmt.Fprintln(os.Stderr, "shoal-meshproxy: reset:", err)
			os.Exit(1)
		}
		return
	}
	run.Main("meshproxy", meshproxy.DefaultConfig(), func(ctx context.Context, cfg meshproxy.Config, env run.Env) error {
		return meshproxy.Run(ctx, cfg, meshproxy.Env{Env: env})
	}, "reset\n    \tremove all that it has made in the kernel; `shoal leave` calls it")
}

func reset() error {
	kernel, err := tables.New()
	if err != nil {
		return err
	}
	defer kernel.Close()
	return kernel.Reset(context.Background())
}
