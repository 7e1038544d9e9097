package reconcile_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/services/agent/agenttest"
)

// An agent that is killed at any moment of a task's way up is followed by one that brings it up: with one start in all, and
// with a container that ran before left as it is.
func TestKilledOnTheWayUp(t *testing.T) {
	for at := time.Duration(0); at < 6*time.Second; at += 170 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			host := slow()
			a := start(t, host)
			a.assign(whole(1, assigned("t", running, 0)))
			a.settle(at)
			host.Crash()
			a.stop()
			ran := host.Starts()
			a = start(t, host)
			a.assign(whole(1, assigned("t", running, 0)))
			a.settle(20 * time.Second)
			a.expect("t", running, true, "")
			if got := host.Containers(); len(got) != 1 || !got[0].Running || host.Starts() != 1 {
				t.Errorf("killed after %s, when %d had been started: now %d starts, %+v", at, ran, host.Starts(), got)
			}
		})
	}
}

// An agent that is killed at any moment of a task's way out is followed by one that takes it away: nothing is left, and nothing
// was started once more.
func TestKilledOnTheWayOut(t *testing.T) {
	for at := time.Duration(0); at < 10*time.Second; at += 330 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			host := slow()
			a := start(t, host)
			a.assign(whole(1, assigned("t", running, 0), assigned("other", running, 0)))
			a.settle(10 * time.Second)
			a.assign(change(2, assigned("t", shutdown, 2)))
			a.settle(at)
			host.Crash()
			a.stop()
			a = start(t, host)
			a.assign(whole(2, assigned("t", shutdown, 2), assigned("other", running, 0)))
			a.settle(20 * time.Second)
			if s := a.said["t"].GetState(); s < shutdown {
				t.Errorf("killed after %s: it is reported %v", at, s)
			}
			if got := host.Containers(); len(got) != 1 || got[0].ID != "other.0" || host.Starts() != 2 {
				t.Errorf("killed after %s: %d starts, %+v", at, host.Starts(), got)
			}
		})
	}
}

// slow is a host that takes its time for each step.
func slow() *agenttest.Host {
	host := newHost()
	for _, image := range []string{"img-t", "img-other"} {
		host.Behave(image, agenttest.Behaviour{PrepareDelay: 2 * time.Second, StartDelay: 2 * time.Second, StopDelay: 2 * time.Second})
	}
	return host
}
