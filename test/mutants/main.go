// Command mutants shows that the tests can fail. Each patch in patches/ removes one guarantee (an fsync, a fence, a role
// check) from a copy of the source, and the test that its header names must turn red, by a failing test and not because
// the copy does not build. A guarantee without its mutant is a wish.
//
// It works on a copy in a temporary folder, never on the checkout, one mutant a processor at a time, and ends with the line
// "N passed, N failed".
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	filter := flag.String("run", "", "take only the mutants whose name matches this `regexp`")
	root := flag.String("root", "..", "the `folder` of the repository")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed, err := Run(ctx, *root, *filter, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if err != nil || failed > 0 {
		stop()
		os.Exit(1)
	}
}
