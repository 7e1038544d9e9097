package reconcile_test

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestGuardedTaskWaits: a container whose service names its callers does not run before its machine's meshproxy keeps all others
// out; one that anybody may call needs no meshproxy to run.
func TestGuardedTaskWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, newHost())
		a.deaf.Store(true)
		guarded := assigned("guarded", running, 0)
		guarded.Guarded = true
		a.assign(whole(5, guarded, assigned("open", running, 0)))
		a.settle(20 * time.Second)
		a.expect("open", running, true, "")
		if got := a.said["guarded"]; got.GetState() >= ready {
			t.Errorf("without anybody to keep strangers out it is %v", got)
		}
		a.deaf.Store(false)
		a.settle(20 * time.Second)
		a.expect("guarded", running, true, "")
	})
}
