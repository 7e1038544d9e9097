package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestNothingIsSaidBeforeTheReplicaHasTheSession: an assignment of a replica that is behind would stop what runs.
func TestNothingIsSaidBeforeTheReplicaHasTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running := typesv1.TaskState_TASK_STATE_RUNNING
		r := newRig(t, node("n1"), service(), task("t1", "n1", running))
		r.store.Mute(true) // the store goes on, and this dispatcher does not hear of it
		r.store.Put(task("t2", "n1", running))
		m := r.open("n1", "boot")
		time.Sleep(time.Second)
		select {
		case got := <-m.heard:
			t.Fatalf("said while the replica was behind: %v", got)
		default:
		}
		r.store.Mute(false)
		if a := m.assignment(); !a.GetFull() || len(a.GetTasks()) != 2 {
			t.Fatalf("first assignment: %v, want the whole with t1 and t2", a)
		}
	})
}
