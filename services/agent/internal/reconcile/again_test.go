package reconcile_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const complete = typesv1.TaskState_TASK_STATE_COMPLETE

// restarting is a task with a restart policy.
func restarting(id string, c typesv1.RestartCondition, most uint64) *dispatcherv1.AssignedTask {
	t := assigned(id, running, 0)
	t.Spec.Restart = &typesv1.RestartPolicy{Condition: c, Delay: durationpb.New(2 * time.Second), MaxAttempts: most}
	return t
}

// A machine without a dispatcher runs failed containers again, as further attempts of the same task: not before 30 s, only what
// the cluster has not heard of, and as each policy allows.
func TestAMachineThatIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		a := start(t, host)
		always, onFailure, never := typesv1.RestartCondition_RESTART_CONDITION_ANY, typesv1.RestartCondition_RESTART_CONDITION_ON_FAILURE, typesv1.RestartCondition_RESTART_CONDITION_NONE
		a.assign(whole(1, restarting("any", always, 0), restarting("failure", onFailure, 0), restarting("never", never, 0),
			restarting("ends", onFailure, 0), restarting("heard", always, 0), restarting("twice", always, 2)))
		a.settle(0)
		for _, id := range []string{"any", "failure", "never", "ends", "heard", "twice"} {
			a.expect(id, running, true, "")
		}
		a.Line(a.ctx, true)
		host.Kill("heard.0", 1)
		a.settle(0)
		a.Acked(a.ctx, a.outbox.Pending(1000)) // the cluster knows of it: it is the scheduler's
		a.Line(a.ctx, false)
		for id, code := range map[string]int32{"any.0": 0, "failure.0": 1, "never.0": 1, "ends.0": 0, "twice.0": 1} {
			host.Kill(id, code)
		}
		a.settle(29 * time.Second)
		a.expect("failure", failed, false, "exit code 1")
		// What it may run again keeps its image: there may be no registry to ask.
		if images, err := a.Images(a.ctx); err != nil || len(images) != 3 {
			t.Errorf("images that are kept: %q, %v, want those of any, failure and twice", images, err)
		}
		a.settle(4 * time.Second) // the restart delay is over, too
		a.expect("any", running, true, "")
		a.expect("failure", running, true, "")
		a.expect("never", failed, false, "")
		a.expect("ends", complete, false, "")
		a.expect("heard", failed, false, "")
		if got := a.said["failure"]; got.GetAttempt() != 1 || got.GetContainerId() != "failure.1" || got.ExitCode != nil {
			t.Errorf("its further attempt is %v", got)
		}
		for _, id := range []string{"twice.1", "twice.2"} {
			host.Kill(id, 1)
			a.settle(3 * time.Second)
		}
		a.expect("twice", failed, false, "")
		if got := a.said["twice"]; got.GetAttempt() != 2 {
			t.Errorf("after its most attempts it is %v", got)
		}

		// A new agent takes over what runs, with its attempt.
		a.stop()
		a = start(t, host)
		a.assign(whole(2, restarting("any", always, 0), restarting("failure", onFailure, 0)))
		a.settle(time.Second)
		a.expect("failure", running, true, "")
		if got := ids(host); len(got) != 2 || got[0] != "any.1" || got[1] != "failure.1" {
			t.Errorf("there are %q", got)
		}
		// With a dispatcher there is nobody alone.
		a.Line(a.ctx, false)
		a.settle(10 * time.Second)
		a.Line(a.ctx, true)
		host.Kill("failure.1", 1)
		a.settle(time.Minute)
		a.expect("failure", failed, false, "exit code 1")
	})
}
