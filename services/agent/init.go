package agent

import (
	"io"

	"github.com/shoalproject/shoal/services/agent/internal/initd"
)

// Init is process 1 of containers that ask for a small init. It returns the exit code.
func Init(args []string, stderr io.Writer) int { return initd.Run(args, stderr) }
