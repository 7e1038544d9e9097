package reset_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	"github.com/shoalproject/shoal/services/agent/agenttest"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/reconcile"
	"github.com/shoalproject/shoal/services/agent/internal/reset"
	"github.com/shoalproject/shoal/services/agent/internal/task"
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

// hung is a runtime that takes calls and does not answer, after so many lists. Its own calls end after 30 s, as the executor's do.
type hung struct {
	reconcile.Executor
	lists atomic.Int32
}

func (h *hung) List(ctx context.Context) ([]container.Found, error) {
	if h.lists.Add(-1) < 0 {
		<-ctx.Done()
		return nil, errs.New(errs.Unavailable, "no answer")
	}
	return make([]container.Found, 100), nil
}

func (h *hung) Remove(ctx context.Context, _ string, _ container.Stop) (*task.Exit, error) {
	return nil, errs.New(errs.Unavailable, "no answer: %w", run.Sleep(ctx, 30*time.Second))
}

// TestResetOfAHungRuntimeEnds: with a runtime that does not answer, from the first or from somewhere on, a reset ends within a minute and says so,
// however many containers there are, and leaves their networks.
func TestResetOfAHungRuntimeEnds(t *testing.T) {
	for lists := range int32(2) {
		synctest.Test(t, func(t *testing.T) {
			host := agenttest.NewHost("w1", run.NewRand(1))
			env := host.Env(testx.Env(t))
			if _, err := env.Network.Make(t.Context(), container.Wiring{ID: "runs.0"}); err != nil {
				t.Fatal(err)
			}
			began, silent := time.Now(), &hung{}
			silent.lists.Store(lists)
			err := (reset.Machine{Log: env.Log, Executor: silent, Network: env.Network, Files: env.Vault}).Run(t.Context())
			if took := time.Since(began); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "systemctl restart containerd") || took > time.Minute {
				t.Errorf("after %s: %v", took, err)
			}
			if len(host.Namespaces()) != 1 {
				t.Error("the network of a container that may run is gone")
			}
		})
	}
}
