// Command shoal is the person's tool: it makes a cluster of machines, lets machines join and leave it, and says what runs
// on them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/command"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := command.Run(ctx, app.Real(), os.Args[1:])
	stop()
	os.Exit(code)
}
