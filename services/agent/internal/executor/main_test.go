package executor

import (
	"os"
	"testing"

	"github.com/shoalproject/shoal/services/agent/internal/logger"
)

// The shim starts this test's own program beside each container, as it starts an agent's.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "logger" {
		os.Exit(logger.Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}
