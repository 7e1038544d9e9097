// Command shoal-lab makes a laboratory of bare hosts on one Linux machine and works on it. Its verbs and the JSON form
// of its status are a contract; ../../README.md tells about each.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/shoalproject/shoal/test/harness/enter"
	"github.com/shoalproject/shoal/test/harness/hostinit"
	"github.com/shoalproject/shoal/test/harness/systemctl"
)

func main() {
	if filepath.Base(os.Args[0]) == "systemctl" {
		os.Exit(systemctl.Run(context.Background(), hostinit.NewClient(hostinit.Socket), os.Args[1:], os.Stdout, os.Stderr))
	}
	if len(os.Args) > 2 && os.Args[1] == enter.Verb {
		os.Exit(enter.Inside(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := newRoot().ExecuteContext(ctx)
	stop()
	var code exitCode
	if errors.As(err, &code) {
		os.Exit(int(code))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shoal-lab:", err)
		os.Exit(1)
	}
}

// exitCode ends the program with a command's own exit code, without a word of ours.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }
