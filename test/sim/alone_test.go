package sim_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/sim"
)

// When no dispatcher is there a container that fails runs again by itself, after 30 s, as a further attempt of the same task.
// When one is back the task is the same, with its attempt, and nothing was started in its place.
func TestFailedContainersRunAgainWithoutDispatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 7, apart())
		serve(t, c, 2)
		before := tasksOf(t, c, "web")[0].GetTask()
		m := c.MachineOf(before.GetDecided().GetNodeId())
		dispatchers := []string{"m1", "d1", "d2"}
		for _, d := range dispatchers {
			c.Machine(d).Kill("dispatcher")
		}
		time.Sleep(5 * time.Second)
		m.Runtime.Kill(before.GetObserved().GetContainerId(), 1)
		first, again := before.GetMeta().GetId()+".0", before.GetMeta().GetId()+".1"
		has := func(id string) bool {
			for _, one := range m.Runtime.Containers() {
				if one.ID == id && one.Running {
					return true
				}
			}
			return false
		}
		time.Sleep(20 * time.Second)
		if has(first) || has(again) {
			t.Error("it runs before the machine counts as alone")
		}
		c.Until("it runs again", 20*time.Second, func() string {
			if !has(again) {
				return fmt.Sprint(m.Runtime.Containers())
			}
			return ""
		})
		time.Sleep(2 * time.Minute)
		for _, d := range dispatchers {
			if err := c.Machine(d).StartAgain("dispatcher"); err != nil {
				t.Fatal(err)
			}
		}
		c.Until("it is reported", 20*time.Second, func() string {
			for _, l := range tasksOf(t, c, "web") {
				o := l.GetTask().GetObserved()
				if l.GetTask().GetMeta().GetId() == before.GetMeta().GetId() && o.GetAttempt() == 1 && o.GetState() == typesv1.TaskState_TASK_STATE_RUNNING && o.GetReady() {
					return ""
				}
			}
			return fmt.Sprint(tasksOf(t, c, "web"))
		})
		time.Sleep(30 * time.Second)
		if now := tasksOf(t, c, "web"); len(now) != 2 || !has(again) {
			t.Errorf("%d tasks after the return: %v", len(now), now)
		}
	})
}
