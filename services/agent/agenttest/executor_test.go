package agenttest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/agenttest"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/reconcile/reconciletest"
)

// TestExecutorConforms: hollow containers keep what real ones promise.
func TestExecutorConforms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := agenttest.NewHost("h1", run.NewRand(1))
		host.Behave("lasting", agenttest.Behaviour{Health: reconciletest.Look()})
		host.Behave("ending", agenttest.Behaviour{RunFor: time.Millisecond, ExitCode: 3})
		of := func(image string) func(id string) container.Spec {
			return func(id string) container.Spec {
				return container.Spec{ID: id, Container: &typesv1.ContainerSpec{Image: image}}
			}
		}
		host.SetSick("lasting", true)
		reconciletest.Conform(t, reconciletest.Rig{
			Executor: host.Env(testx.Env(t)).Executor, Lasting: of("lasting"), Ending: of("ending"), Well: []string{"well"}, Sick: []string{"look"}, Long: []string{"sleep", "1000"},
		})
	})
}
