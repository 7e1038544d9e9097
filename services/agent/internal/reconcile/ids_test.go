package reconcile_test

import (
	"testing"
	"testing/synctest"
	"time"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/agenttest"
)

// private is a task whose container has a user namespace of its own.
func private(id string, desired typesv1.TaskState) *dispatcherv1.AssignedTask {
	t := assigned(id, desired, 1)
	t.Spec.Container.Privileges = &typesv1.Privileges{UserNamespace: typesv1.UserNamespace_USER_NAMESPACE_PRIVATE}
	return t
}

func usersOf(host *agenttest.Host) map[string]uint32 {
	all := map[string]uint32{}
	for _, c := range host.Containers() {
		all[c.TaskID] = c.FirstID
	}
	return all
}

// Each container has user ids that no other has, also when the agent was killed and has lost its journal; those of one that is gone
// are given again.
func TestUserIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const run, end = typesv1.TaskState_TASK_STATE_RUNNING, typesv1.TaskState_TASK_STATE_SHUTDOWN
		host := newHost()
		a := start(t, host)
		a.assign(whole(1, private("a", run), private("b", run), assigned("plain", run, 1)))
		a.settle(0)
		first := usersOf(host)
		if first["plain"] != 0 || first["a"] == 0 || first["b"] == 0 || first["a"] == first["b"] {
			t.Fatalf("user ids: %v", first)
		}
		host.Crash()
		a.stop()
		host.LoseJournal()
		a = start(t, host)
		tasks := []*dispatcherv1.AssignedTask{private("a", run), private("b", run), assigned("plain", run, 1)}
		for _, id := range []string{"c", "d", "e", "f", "g", "h", "i"} {
			tasks = append(tasks, private(id, run))
		}
		a.assign(whole(2, tasks...))
		a.settle(0)
		has := map[uint32]string{}
		for id, users := range usersOf(host) {
			if other := has[users]; other != "" && users != 0 {
				t.Errorf("%s and %s have the user ids from %d on", id, other, users)
			}
			has[users] = id
		}
		if now := usersOf(host); now["a"] != first["a"] || now["b"] != first["b"] {
			t.Errorf("user ids were %v and are %v", first, now)
		}
		// There are eight ranges and nine who want one.
		a.expect("i", typesv1.TaskState_TASK_STATE_PREPARING, false, "waits for user ids: all 8 ranges of this node are in use")
		a.assign(change(3, private("b", end)))
		a.settle(6 * time.Second)
		a.expect("i", run, true, "")
		if now := usersOf(host); now["i"] != first["b"] {
			t.Errorf("the task that waited has %d, want b's %d", now["i"], first["b"])
		}
	})
}
