package sim_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/sim"
)

// Health gates: a task that is never healthy stays STARTING; one that turns unhealthy is FAILED, by name, also when its
// process ends with exit code 0, and so a service that restarts on failure gets it back.
func TestHealthGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const image = "registry.test/micro:1.0.0"
		c := small(t, 51, 2)
		sick := func(yes bool) {
			for _, m := range c.With(authzv1.Role_ROLE_AGENT) {
				m.Runtime.SetSick(image, yes)
			}
		}
		sick(true)
		if _, err := c.Operator.CreateService("gated", 0); err != nil {
			t.Fatal(err)
		}
		if err := c.Operator.Update("gated", func(s *typesv1.ServiceSpec) {
			one := uint64(1)
			s.Mode = &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: &one}}
			s.Task.Restart = &typesv1.RestartPolicy{Condition: typesv1.RestartCondition_RESTART_CONDITION_ON_FAILURE, Delay: durationpb.New(time.Second)}
			s.Task.Container.Healthcheck = &typesv1.Probe{Test: []string{"CMD", "look"}, Interval: durationpb.New(time.Second), Retries: 3}
		}); err != nil {
			t.Fatal(err)
		}
		const waits = "waits until its health check succeeds"
		c.Until("the task starts and waits", 5*time.Second, func() string { return saying(t, c, typesv1.TaskState_TASK_STATE_STARTING, waits) })
		if wrong := c.Operator.Wrong("gated", 1); wrong == "" {
			t.Error("a task that was never healthy counts as running")
		}
		sick(false)
		t.Logf("healthy: running after %s", c.Operator.Converge("gated", 1, 10*time.Second))
		sick(true)
		c.Until("the task has failed", 10*time.Second, func() string {
			return saying(t, c, typesv1.TaskState_TASK_STATE_FAILED, "unhealthy: failed 3 times in a row: exit code 1 not well; exit code 0")
		})
		sick(false)
		t.Logf("replaced: running after %s", c.Operator.Converge("gated", 1, 15*time.Second))
	})
}

// saying is empty when a task of gated is in the state and says so.
func saying(t *testing.T, c *sim.Cluster, state typesv1.TaskState, message string) string {
	t.Helper()
	tasks, err := c.Operator.ListTasks("gated", false)
	if err != nil {
		return err.Error()
	}
	var said []string
	for _, l := range tasks {
		o := l.GetTask().GetObserved()
		if o.GetState() == state && strings.Contains(o.GetMessage(), message) {
			return ""
		}
		said = append(said, o.GetState().String()+" "+o.GetMessage())
	}
	return strings.Join(said, "; ")
}
