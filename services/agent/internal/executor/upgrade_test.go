package executor

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// TestUpgradedRuntime: containers that the machine's containerd has started are another one's after it, with the same files: found as
// they were, entered, read, stopped, with new ones beside them of the image that was there. One that ended meanwhile is not taken for one
// that runs; its exit code is told unless that containerd forgets it, as those from 1.7 on do.
func TestUpgradedRuntime(t *testing.T) {
	next := os.Getenv(otherContainerd)
	if next == "" {
		t.Skip("needs the containerd to change to: make test-containerd2")
	}
	r := newRigWith(t, "")
	old, err := r.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stays, ends := r.spec("in.0", "tick"), r.spec("ends.0")
	pid, ending := r.run(t, stays), r.run(t, ends)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.stopDaemon(t)
	if err := syscall.Kill(int(ending), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	asked := r.registry.asked.Load()
	r.programs = next // by the configuration of the old one
	r.startDaemon(t)
	r.Executor = r.again(t)
	if now, err := r.Version(t.Context()); err != nil || now == old {
		t.Fatalf("it was %s, and is %s, %v", old, now, err)
	}

	found, err := r.List(t.Context())
	if err != nil || len(found) != 2 {
		t.Fatalf("found %+v, %v", found, err)
	}
	for _, f := range found {
		if f.ID == ends.ID && f.Presence == task.Running {
			t.Errorf("what has ended is said to run: %+v", f)
		}
		if f.ID == stays.ID && (f.Presence != task.Running || f.PID != pid || f.Origin.Generation != "1/5") {
			t.Errorf("found %+v", f)
		}
	}
	if again, err := r.Start(t.Context(), stays.ID); err != nil || again != pid {
		t.Errorf("starting what runs: pid %d, %v", again, err)
	}
	if exit, err := r.Wait(t.Context(), ends.ID); exit.Code != 137 && !errs.Is(err, errs.NotFound) {
		t.Errorf("what ended meanwhile: %+v, %v", exit, err)
	}
	before := len(r.lines(t, stays.ID, nil))
	until(t, "it is read on", func() bool { return len(r.lines(t, stays.ID, nil)) > before+100 })
	r.run(t, r.spec("fresh.0"))
	if now := r.registry.asked.Load(); now != asked {
		t.Errorf("the image was asked for again, %d times", now-asked)
	}
	if code, _, _ := r.exec(t, container.Command{Args: []string{"/probe", "exit", "3"}}); code != 3 {
		t.Errorf("a command in it ended with %d", code)
	}
	if _, err := r.Remove(t.Context(), stays.ID, container.Stop{Signal: "SIGKILL", Grace: time.Second}); err != nil {
		t.Error(err)
	}
}

// TestEndWithoutRuntime: how a container ends is told although no containerd is there, and is not forgotten when one is again.
func TestEndWithoutRuntime(t *testing.T) {
	r := newRig(t)
	s := r.spec("ends.0")
	pid := r.run(t, s)
	exits := run.Async(t.Context(), func(ctx context.Context) (task.Exit, error) { return r.Wait(ctx, s.ID) })
	r.stopDaemon(t)
	if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-exits:
		if got.Err != nil || got.Value != (task.Exit{Code: 137}) {
			t.Errorf("%+v", got)
		}
	case <-time.After(20 * time.Second):
		t.Error("nobody told that it ended")
	}
	r.startDaemon(t)
	until(t, "it is removed", func() bool {
		_, err := r.Remove(t.Context(), s.ID, container.Stop{})
		return err == nil
	})
}

// TestShimStaysKnown: whoever looks at a container while it ends must not forget where its end is asked for.
func TestShimStaysKnown(t *testing.T) {
	const nobody = 1 << 30 // beyond what the kernel counts to
	e := &Executor{bundles: map[string]string{"a.0": "/of/a.0"}}
	if e.runs("a.0", nobody); e.bundles["a.0"] != "/of/a.0" {
		t.Errorf("it is at %q now", e.bundles["a.0"])
	}
	if e.runs("b.0", nobody); len(e.bundles) != 1 {
		t.Errorf("what has gone is kept: %q", e.bundles)
	}
}
