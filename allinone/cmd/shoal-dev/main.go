// Command shoal-dev is a whole cluster on one machine in one process: for a laptop, for trying, and for tests of what runs
// on shoal. It takes root and a containerd. README.md has the rest.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	cfssllog "github.com/cloudflare/cfssl/log"

	"github.com/shoalproject/shoal/allinone"
	"github.com/shoalproject/shoal/services/agent"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "init" { // process 1 of a container with a small init
		os.Exit(agent.Init(os.Args[2:], os.Stderr))
	}
	if len(os.Args) > 1 && os.Args[1] == "logger" { // beside each container, as `shoal-agent logger`
		os.Exit(agent.Logger(os.Args[2:]))
	}
	cfssllog.Level = cfssllog.LevelError // its lines are not ours: every issue has an audit line of our own
	// Whoever closes the terminal wants the cluster to end, too.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := allinone.Command(ctx, os.Args[1:], allinone.Streams{Out: os.Stdout, Err: os.Stderr}, os.Getenv)
	stop()
	os.Exit(code)
}
