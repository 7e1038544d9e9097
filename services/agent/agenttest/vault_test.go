package agenttest

import (
	"path"
	"strconv"
	"testing"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/memfs/memfstest"
)

// TestVaultConforms holds the fake to what the one in the kernel promises.
func TestVaultConforms(t *testing.T) {
	h := NewHost("h", run.NewRand(1))
	memfstest.Conform(t, h.Env(run.Env{}).Vault, func(from string) (string, bool) {
		i, err := strconv.Atoi(path.Base(from))
		files := h.files[path.Base(path.Dir(from))]
		if err != nil || i >= len(files) {
			return "", false
		}
		return string(files[i].Data), true
	})
}
