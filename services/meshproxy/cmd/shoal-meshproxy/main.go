// Command shoal-meshproxy connects: it answers on every published port and keeps the machine's networks in the kernel.
// `shoal-meshproxy reset` removes from the kernel all that shoal has made, and nothing else; `shoal leave` calls it.
// `shoal-meshproxy wireguard` encrypts for it where the kernel cannot. `shoal-meshproxy doctor` looks whether the kernel has what it needs.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "reset" {
		if err := meshproxy.Reset(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "shoal-meshproxy: reset:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "doctor" {
		os.Exit(meshproxy.Doctor(context.Background(), run.Machine("meshproxy"), os.Args[2:], os.Stdout, os.Stderr))
	}
	if len(os.Args) > 1 && os.Args[1] == "wireguard" {
		os.Exit(meshproxy.WireGuard(os.Args[2:]))
	}
	process.Main("meshproxy", meshproxy.DefaultConfig(), func(ctx context.Context, cfg meshproxy.Config, env run.Env) error {
		return meshproxy.Run(ctx, cfg, meshproxy.Env{Env: env})
	}, "reset\n    \tremove all that it has made in the kernel; `shoal leave` calls it",
		"doctor [-config file] [-format json]\n    \tlook whether the kernel has what it needs")
}
