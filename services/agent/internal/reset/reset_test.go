package reset_test

import (
	"testing"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	"github.com/shoalproject/shoal/services/agent/agenttest"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/reset"
)

// A reset machine has no container and no namespace of the cluster, whether they ran or not.
func TestResetLeavesNothing(t *testing.T) {
	host := agenttest.NewHost("w1", run.NewRand(1))
	env := host.Env(testx.Env(t))
	for _, id := range []string{"runs.0", "made.0"} {
		box, err := env.Network.Make(t.Context(), container.Wiring{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		if err := env.Executor.Prepare(t.Context(), container.Spec{ID: id, Sandbox: box}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := env.Executor.Start(t.Context(), "runs.0"); err != nil {
		t.Fatal(err)
	}
	if err := (reset.Machine{Log: env.Log, Executor: env.Executor, Network: env.Network, Files: env.Vault}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := host.Containers(); len(left) != 0 {
		t.Errorf("containers left: %v", left)
	}
	if left := host.Namespaces(); len(left) != 0 {
		t.Errorf("namespaces left: %v", left)
	}
}
