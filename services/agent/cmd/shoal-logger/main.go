// Command shoal-logger is the process beside each container that keeps its output; the container's shim starts it
// (`shoal-logger logger FOLDER`). `shoal-agent logger` is the same: this one is small, so that it starts in a moment.
package main

import (
	"fmt"
	"os"

	"github.com/shoalproject/shoal/services/agent/internal/logger"
)

func main() {
	if len(os.Args) < 2 || os.Args[1] != "logger" {
		fmt.Fprintln(os.Stderr, "usage: shoal-logger logger FOLDER; containerd's shim starts it")
		os.Exit(2)
	}
	os.Exit(logger.Main(os.Args[2:]))
}
