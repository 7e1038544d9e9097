package agent

import "github.com/shoalproject/shoal/services/agent/internal/logger"

// Logger is the process beside each container that keeps its output; the container's shim starts it, with the container's
// folder. It returns the exit code.
func Logger(args []string) int { return logger.Main(args) }
