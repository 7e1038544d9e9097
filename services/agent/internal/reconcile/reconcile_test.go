package reconcile_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/agenttest"
)

func TestStartAndStopByBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		host.Behave("img-a", agenttest.Behaviour{StopDelay: time.Second})
		a := start(t, host)
		a.assign(whole(5, assigned("a", ready, 0)))
		a.settle(time.Second)
		a.expect("a", ready, false, "")
		if host.Starts() != 0 {
			t.Error("started before it was asked to")
		}
		a.assign(change(6, assigned("a", running, 0)))
		a.settle(time.Second)
		a.expect("a", running, true, "")
		if got := a.said["a"]; got.GetContainerId() != "a.0" || got.GetPid() == 0 {
			t.Errorf("no container id or pid in %v", got)
		}
		a.assign(change(9, assigned("a", shutdown, 9)))
		a.settle(time.Second)
		a.expect("a", running, false, "no machine sends it new connections")
		a.Barrier(a.ctx, version(8)) // not yet
		a.settle(time.Second)
		if got := ids(host); !slices.Equal(got, []string{"a.0"}) {
			t.Fatalf("stopped before the mesh had let go: %v", got)
		}
		a.Barrier(a.ctx, version(9))
		a.settle(2 * time.Second)
		a.expect("a", shutdown, false, "stopped: exit code 0")
		if len(host.Containers()) > 0 || len(host.Namespaces()) > 0 {
			t.Errorf("left behind: %v %v", host.Containers(), host.Namespaces())
		}
	})
}

// TestStopAtTheBound: a meshproxy that never answers holds a stop for 5 s and no longer; then a deaf process for its grace.
func TestStopAtTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		host.Behave("", agenttest.Behaviour{StopDelay: time.Hour})
		a := start(t, host)
		a.assign(whole(5, assigned("a", running, 0)))
		a.settle(time.Second)
		a.assign(change(9, assigned("a", shutdown, 9)))
		a.settle(4 * time.Second)
		a.expect("a", running, false, "no machine sends it new connections")
		a.settle(time.Second)
		a.expect("a", running, false, "stopping")
		a.settle(3 * time.Second)
		a.expect("a", shutdown, false, "killed by signal 9 (SIGKILL)")
	})
}

func TestTakeoverAfterKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		host.Behave("img-b", agenttest.Behaviour{RunFor: 10 * time.Second, ExitCode: 3})
		a := start(t, host)
		a.assign(whole(5, assigned("a", running, 0), assigned("b", running, 0)))
		a.settle(time.Second)
		host.Crash()
		a.stop()
		pass(t, time.Minute) // b ends while nobody looks
		b := start(t, host)
		b.settle(time.Minute) // no assignment comes: nothing may be touched
		b.expect("a", running, true, "")
		b.expect("b", failed, false, "exit code 3")
		if got := b.said["b"].GetExitCode(); got != 3 {
			t.Errorf("exit code %d", got)
		}
		if got := ids(host); !slices.Equal(got, []string{"a.0", "b.0"}) {
			t.Errorf("touched before the first assignment: %v", got)
		}
		if got := b.Generation().GetRevision(); got != 5 {
			t.Errorf("generation %d after the restart", got)
		}
		b.assign(whole(6, assigned("a", running, 0)))
		b.settle(time.Second)
		if got := ids(host); !slices.Equal(got, []string{"a.0"}) || host.Starts() != 2 {
			t.Errorf("containers %v after %d starts", got, host.Starts())
		}
	})
}

// TestTakeoverWithoutJournal: the labels are enough.
func TestTakeoverWithoutJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		a := start(t, host)
		a.assign(whole(5, assigned("a", running, 0), assigned("b", running, 0)))
		a.settle(time.Second)
		host.Crash()
		a.stop()
		host.LoseJournal()
		b := start(t, host)
		b.assign(whole(6, assigned("a", running, 0)))
		b.settle(10 * time.Second) // b is nobody's any more
		b.expect("a", running, true, "")
		if b.said["a"].GetSeq() < a.said["a"].GetSeq() {
			t.Error("the cluster will take the new status for an old one")
		}
		if got := ids(host); !slices.Equal(got, []string{"a.0"}) || host.Starts() != 2 {
			t.Errorf("containers %v after %d starts", got, host.Starts())
		}
	})
}

func TestPowerCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		a := start(t, host)
		a.assign(whole(5, assigned("a", running, 0), assigned("b", ready, 0)))
		a.settle(time.Second)
		host.PowerOff()
		a.stop()
		b := start(t, host)
		b.assign(whole(6, assigned("a", running, 0), assigned("b", running, 0)))
		b.settle(time.Second)
		b.expect("a", failed, false, "the container is gone")
		b.expect("b", running, true, "")
	})
}

func TestOlderAssignmentIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		a := start(t, host)
		if err := a.Assign(a.ctx, change(5, assigned("a", running, 0))); !errs.Is(err, errs.Conflict) {
			t.Errorf("a difference to nothing: %v", err)
		}
		a.assign(whole(9, assigned("a", running, 0)))
		a.settle(time.Second)
		older := whole(8)
		lowerEpoch := whole(100)
		lowerEpoch.Generation.Epoch = &typesv1.Epoch{Number: 0, Nonce: 9}
		for _, bad := range []*dispatcherv1.Assignment{older, lowerEpoch, {Full: true}} {
			if err := a.Assign(a.ctx, bad); err == nil {
				t.Errorf("taken: %v", bad)
			}
		}
		host.Crash()
		a.stop()
		a = start(t, host)
		if err := a.Assign(a.ctx, older); !errs.Is(err, errs.Conflict) {
			t.Errorf("after a restart: %v", err)
		}
		a.settle(10 * time.Second)
		if got := ids(host); !slices.Equal(got, []string{"a.0"}) {
			t.Errorf("an older assignment stopped what a newer one started: %v", got)
		}
		higher := whole(1, assigned("a", running, 0))
		higher.Generation.Epoch = &typesv1.Epoch{Number: 2, Nonce: 1}
		before := a.said["a"].GetSeq()
		a.assign(higher)
		a.settle(time.Second)
		if a.said["a"].GetSeq() <= before {
			t.Error("a restored cluster is not told again what runs")
		}
	})
}

func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		host.Behave("img-none", agenttest.Behaviour{PullError: "manifest unknown"})
		host.Behave("img-bad", agenttest.Behaviour{StartError: "no such file or directory"})
		host.Behave("img-slow", agenttest.Behaviour{PrepareDelay: time.Hour})
		a := start(t, host)
		a.assign(whole(5, assigned("none", running, 0), assigned("bad", running, 0), assigned("slow", running, 0), assigned("dies", running, 0)))
		a.settle(time.Second)
		a.expect("none", rejected, false, `pull image "img-none": manifest unknown`)
		a.expect("bad", failed, false, "no such file or directory")
		if !host.Kill("dies.0", 137) {
			t.Fatal("nothing to kill")
		}
		a.settle(time.Second)
		a.expect("dies", failed, false, "exit code 137: killed by signal 9 (SIGKILL)")
		if diff := cmp.Diff([]string{"dies"}, a.withdrawn); diff != "" {
			t.Errorf("told to the meshproxy: %s", diff)
		}
		a.assign(change(6, assigned("slow", shutdown, 6))) // in the middle of its pull
		a.settle(time.Second)
		a.expect("slow", shutdown, false, "")
		if len(host.Containers()) > 0 || len(host.Namespaces()) > 0 {
			t.Errorf("left behind: %v %v", host.Containers(), host.Namespaces())
		}
	})
}

// TestRuntimeAway: what can't be done now waits and says why; what runs is not disturbed.
func TestRuntimeAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		a := start(t, host)
		a.assign(whole(5, assigned("a", running, 0)))
		a.settle(time.Second)
		host.SetRuntime(false)
		a.assign(change(6, assigned("b", running, 0)))
		a.settle(10 * time.Second)
		a.expect("a", running, true, "")
		a.expect("b", typesv1.TaskState_TASK_STATE_PREPARING, false, "does not answer")
		host.SetRuntime(true)
		a.settle(2 * time.Second)
		a.expect("b", running, true, "")
		if got := a.said["a"]; host.Starts() != 2 || got.GetState() != running {
			t.Errorf("%d starts, a is %v", host.Starts(), got)
		}
	})
}

// TestDropped: what the cluster has forgotten leaves nothing behind, in the journal neither.
func TestDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		a := start(t, host)
		a.assign(whole(5, assigned("a", running, 0), assigned("b", running, 0)))
		a.settle(time.Second)
		a.assign(whole(7, assigned("b", running, 0)))
		a.Barrier(a.ctx, version(7))
		a.settle(time.Second)
		a.assign(&dispatcherv1.Assignment{Generation: version(8), RemovedTasks: []string{"b"}})
		a.settle(6 * time.Second) // without a barrier: the bound
		if len(host.Containers()) > 0 || len(host.Namespaces()) > 0 {
			t.Errorf("left behind: %v %v", host.Containers(), host.Namespaces())
		}
		s, err := host.Env(testx.Env(t)).Journal.Load(t.Context())
		if err != nil || len(s.Tasks) > 0 {
			t.Errorf("the journal still has %v, %v", s.Tasks, err)
		}
	})
}

// TestAckedIsNotRepeated: after a restart only what the cluster does not have is said again.
func TestAckedIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		a := start(t, host)
		a.assign(whole(5, assigned("a", running, 0), assigned("b", running, 0)))
		a.settle(time.Second)
		all := a.outbox.Pending(10)
		a.outbox.Ack(all[:1])
		a.Acked(a.ctx, all[:1])
		a.settle(2 * time.Second)
		host.Crash()
		a.stop()
		b := start(t, host)
		b.settle(time.Second)
		if len(b.said) != 1 || b.said["b"].GetState() != running {
			t.Errorf("said again: %v", b.said)
		}
	})
}

// TestSessionEnds: what an assignment has begun goes on when the session that brought it ends, at whatever step that hits:
// a start and a stop come to their end, and a container's death is seen.
func TestSessionEnds(t *testing.T) {
	for _, after := range []time.Duration{0, 500 * time.Millisecond, 5 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host := newHost()
				host.Behave("", agenttest.Behaviour{StartDelay: time.Second, StopDelay: time.Second})
				a := start(t, host)
				a.assign(whole(5, assigned("a", ready, 0), assigned("b", running, 0)))
				a.settle(2 * time.Second)
				a.expect("b", running, true, "")
				session, end := context.WithCancel(a.ctx)
				if err := a.Assign(session, change(6, assigned("a", running, 0), assigned("b", shutdown, 6))); err != nil {
					t.Fatal(err)
				}
				a.Barrier(session, version(6))
				pass(t, after)
				end()
				a.settle(10 * time.Second)
				a.expect("a", running, true, "")
				a.expect("b", shutdown, false, "stopped")
				host.Kill("a.0", 137)
				a.settle(time.Second)
				a.expect("a", failed, false, "exit code 137")
			})
		})
	}
}

// TestPlaceholders: what a spec can only say once its task has a node is filled in on the node; the slot of a global service
// is its node. What comes out too long rejects the task.
func TestPlaceholders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		a := start(t, host)
		task := assigned("t1", running, 0)
		task.ServiceName, task.Slot, task.ServiceLabels = "web", 3, map[string]string{"tier": "front"}
		c := task.Spec.Container
		c.Hostname, c.Env = "{{.Service.Name}}-{{.Task.Slot}}", []string{"AT={{.Node.Hostname}}", "PLAIN=x"}
		c.Mounts = []*typesv1.Mount{{Source: "data-{{.Task.Name}}", Target: "/d", Volume: &typesv1.VolumeOptions{Labels: map[string]string{"l": "{{.Service.Labels.tier}}"}}}}
		global := assigned("t2", running, 0)
		global.Spec.Container.Hostname = "on-{{.Task.Slot}}"
		long := assigned("t3", running, 0)
		long.Spec.Container.Hostname = strings.Repeat("{{.Node.ID}}", 30)
		a.assign(whole(5, task, global, long))
		a.settle(time.Second)
		made := host.Containers()
		if len(made) != 2 || made[0].Hostname != "web-3" || made[0].Spec.GetEnv()[0] != "AT=m1" || made[0].Spec.GetMounts()[0].GetSource() != "data-web.3.t1" ||
			made[0].Spec.GetMounts()[0].GetVolume().GetLabels()["l"] != "front" || made[1].Hostname != "on-node1" {
			t.Errorf("made %+v", made)
		}
		if c.GetHostname() != "{{.Service.Name}}-{{.Task.Slot}}" {
			t.Error("the assignment itself was changed")
		}
		a.expect("t3", rejected, false, "at most 64")
	})
}

func check() *typesv1.Probe {
	return &typesv1.Probe{Test: []string{"CMD", "look"}, Interval: durationpb.New(time.Second), Retries: 2}
}

// TestHealth: a task with a health check is STARTING until the first look succeeds, and FAILED when looks fail, whatever its
// exit code; its machine's meshproxy hears of it at once.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		host.SetSick("img-a", true)
		host.Behave("img-b", agenttest.Behaviour{Health: check()}) // the image's own
		a := start(t, host)
		own := assigned("a", running, 0)
		own.Spec.Container.Healthcheck = check()
		a.assign(whole(5, own, assigned("b", running, 0)))
		a.settle(100 * time.Millisecond)
		a.expect("a", starting, false, "waits until its health check succeeds")
		a.expect("b", starting, false, "waits until its health check succeeds")
		host.SetSick("img-a", false)
		a.settle(2 * time.Second)
		a.expect("a", running, true, "")
		a.expect("b", running, true, "")
		host.SetSick("img-a", true)
		a.settle(800 * time.Millisecond)
		a.expect("a", running, true, "") // one look has failed, two count
		a.settle(time.Second)
		a.expect("a", failed, false, "unhealthy: failed 2 times in a row: exit code 1 not well; exit code 0")
		if !slices.Contains(a.withdrawn, "a") {
			t.Error("the meshproxy was not told")
		}
		a.expect("b", running, true, "")
	})
}

// TestHealthOverRestarts: what was healthy is not asked to prove it again, what is unhealthy is found out, and a verdict that
// was reached before a crash holds after it, although the container ended with exit code 0 meanwhile.
func TestHealthOverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		host.Behave("img-a", agenttest.Behaviour{StopDelay: 2 * time.Second})
		a := start(t, host)
		one, two := assigned("a", running, 0), assigned("b", running, 0)
		one.Spec.Container.Healthcheck, two.Spec.Container.Healthcheck = check(), check()
		a.assign(whole(5, one, two))
		a.settle(2 * time.Second)
		a.expect("b", running, true, "")
		host.SetSick("img-a", true)
		a.settle(2500 * time.Millisecond)
		a.expect("a", running, false, "unhealthy: failed 2 times in a row: exit code 1 not well; stopping")
		host.Crash()
		a.stop()
		host.Kill("a.0", 0)
		b := start(t, host)
		b.assign(whole(5, one, two))
		b.settle(time.Second)
		b.expect("a", failed, false, "unhealthy: failed 2 times in a row: exit code 1 not well; exit code 0")
		b.expect("b", running, true, "")
		host.SetSick("img-b", true)
		b.settle(3 * time.Second)
		b.expect("b", failed, false, "unhealthy: failed 2 times")
	})
}

// TestReadiness: a task whose readiness probe fails runs on and takes no traffic.
func TestReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		host.SetSick("img-a", true)
		a := start(t, host)
		task := assigned("a", running, 0)
		task.Spec.Container.Readiness = &typesv1.Probe{Tcp: &typesv1.TCPProbe{Port: 80}, Interval: durationpb.New(time.Second), Retries: 1}
		a.assign(whole(5, task))
		a.settle(200 * time.Millisecond)
		a.expect("a", running, false, "waits for its readiness probe")
		host.SetSick("img-a", false)
		a.settle(2 * time.Second)
		a.expect("a", running, true, "")
		host.SetSick("img-a", true)
		a.settle(2 * time.Second)
		a.expect("a", running, false, "takes no connections: failed: connection refused")
		host.SetSick("img-a", false)
		a.settle(2 * time.Second)
		a.expect("a", running, true, "")
		if host.Starts() != 1 {
			t.Errorf("%d starts", host.Starts())
		}
	})
}

// TestTrafficWhenItListens: a task without probes runs at once and takes traffic when it listens, a moment later if it never does;
// nobody who runs on is asked again by the agent's next life.
func TestTrafficWhenItListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		host.SetSick("img-a", true)
		a := start(t, host)
		a.assign(whole(5, assigned("a", running, 0)))
		a.settle(200 * time.Millisecond)
		a.expect("a", running, false, "waits until it listens")
		host.SetSick("img-a", false)
		a.settle(20 * time.Millisecond)
		a.expect("a", running, true, "")
		host.SetSick("img-b", true)
		a.assign(whole(6, assigned("a", running, 0), assigned("b", running, 0)))
		a.settle(900 * time.Millisecond)
		a.expect("b", running, false, "waits until it listens")
		a.settle(300 * time.Millisecond)
		a.expect("b", running, true, "")
	})
}

// TestDrainTime: between the mesh's letting go and the first that the container hears of its end lies the service's drain time.
func TestDrainTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		a := start(t, host)
		task := assigned("a", running, 0)
		task.Spec.Container.DrainTime = durationpb.New(3 * time.Second)
		task.Spec.Container.PreStop = &typesv1.PreStop{Command: []string{"CMD-SHELL", "say goodbye"}}
		a.assign(whole(5, task))
		a.settle(time.Second)
		leaving := proto.CloneOf(task)
		leaving.Desired, leaving.StopRevision = shutdown, 6
		a.assign(change(6, leaving))
		a.settle(time.Second)
		a.Barrier(a.ctx, version(6))
		a.settle(2900 * time.Millisecond)
		a.expect("a", running, false, "waits while its connections have time to end")
		if got := host.Commands(); len(got) != 0 {
			t.Errorf("ran %q while its connections have time to end", got)
		}
		a.settle(200 * time.Millisecond)
		a.expect("a", shutdown, false, "stopped")
	})
}

// TestPreStop: the command runs in the container once the mesh has let go, before the signal.
func TestPreStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newHost()
		a := start(t, host)
		task := assigned("a", running, 0)
		task.Spec.Container.PreStop = &typesv1.PreStop{Command: []string{"CMD-SHELL", "say goodbye"}}
		a.assign(whole(5, task))
		a.settle(time.Second)
		a.assign(change(6, func() *dispatcherv1.AssignedTask {
			t := proto.CloneOf(task)
			t.Desired, t.StopRevision = shutdown, 6
			return t
		}()))
		a.settle(0)
		if got := host.Commands(); len(got) != 0 {
			t.Errorf("ran %q while the mesh still sends", got)
		}
		a.Barrier(a.ctx, version(6))
		a.settle(time.Second)
		a.expect("a", shutdown, false, "stopped")
		if got := host.Commands(); !slices.Equal(got, []string{"/bin/sh -c say goodbye"}) {
			t.Errorf("ran %q", got)
		}
	})
}
