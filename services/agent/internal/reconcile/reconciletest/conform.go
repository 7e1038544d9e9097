// Package reconciletest is what the loop relies on in every executor, as a suite: the real one and that of agenttest pass it.
//
// It owns the promises of reconcile.Executor, nothing else.
package reconciletest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/reconcile"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// Rig is an executor with containers that behave as the suite needs it.
type Rig struct {
	reconcile.Executor
	// Lasting runs until it is stopped, and its image brings the health check Look; Ending ends at once with exit code 3.
	Lasting, Ending func(id string) container.Spec
	// Well and Sick are commands that end in a Lasting container with exit codes 0 and 1; Sick says "not well".
	Well, Sick []string
	// Long is a command that lasts.
	Long []string
}

// Conform holds an executor to its promises.
func Conform(t *testing.T, r Rig) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	lasting, ending := r.Lasting("lasting.0"), r.Ending("ending.0")
	presence(ctx, t, r, map[string]task.Presence{})
	r.do(t, "prepare", r.Prepare(ctx, lasting))
	r.do(t, "prepare again", r.Prepare(ctx, lasting))
	presence(ctx, t, r, map[string]task.Presence{lasting.ID: task.Made})
	if _, err := r.Exec(ctx, lasting.ID, container.Command{Args: r.Well}, started); err == nil {
		t.Error("a command ran in a container that does not run")
	}
	pid, err := r.Start(ctx, lasting.ID)
	r.do(t, "start", err)
	if again, err := r.Start(ctx, lasting.ID); err != nil || again != pid || pid == 0 {
		t.Errorf("start again: pid %d, %v; before %d", again, err, pid)
	}
	presence(ctx, t, r, map[string]task.Presence{lasting.ID: task.Running})
	for _, c := range []struct {
		args []string
		code int32
		said string
	}{{r.Well, 0, ""}, {r.Sick, 1, "not well"}} {
		var out, other bytes.Buffer
		code, err := r.Exec(ctx, lasting.ID, container.Command{Args: c.args, Stdout: &out, Stderr: &other}, started)
		if err != nil || code != c.code || !strings.Contains(out.String(), c.said) {
			t.Errorf("%q: exit code %d, %q, %v", c.args, code, out.String(), err)
		}
	}
	commands(ctx, t, r, lasting.ID)
	probe, err := r.ImageProbe(ctx, lasting.Container.GetImage())
	if err != nil || strings.Join(probe.GetTest(), " ") != "CMD look" {
		t.Errorf("the image's health check is %v, %v", probe, err)
	}

	r.do(t, "prepare", r.Prepare(ctx, ending))
	_, err = r.Start(ctx, ending.ID)
	r.do(t, "start", err)
	if exit, err := r.Wait(ctx, ending.ID); err != nil || exit.Code != 3 {
		t.Errorf("wait: %+v, %v", exit, err)
	}
	presence(ctx, t, r, map[string]task.Presence{lasting.ID: task.Running, ending.ID: task.Ended})
	for id, code := range map[string]int32{ending.ID: 3, lasting.ID: 137} {
		if exit, err := r.Remove(ctx, id, container.Stop{}); err != nil || exit == nil || exit.Code != code {
			t.Errorf("remove %s: %+v, %v", id, exit, err)
		}
		if exit, err := r.Remove(ctx, id, container.Stop{}); err != nil || exit != nil {
			t.Errorf("remove %s again: %+v, %v", id, exit, err)
		}
		if _, err := r.Wait(ctx, id); !errs.Is(err, errs.NotFound) {
			t.Errorf("wait for %s, which is gone: %v", id, err)
		}
	}
	presence(ctx, t, r, map[string]task.Presence{})
}

// commands: one that is detached has begun when Exec returns, and nobody waits for it; one whose caller goes ends; what earlier
// lives have left may be ended at any time, also of a container that is not there. Output is kept as long as a container runs.
func commands(ctx context.Context, t *testing.T, r Rig, id string) {
	t.Helper()
	began := false
	code, err := r.Exec(ctx, id, container.Command{Args: r.Long, Detach: true}, func() error { began = true; return nil })
	if err != nil || code != 0 || !began {
		t.Errorf("detached: exit code %d, begun %v, %v", code, began, err)
	}
	own, cancel := context.WithCancel(ctx)
	_, err = r.Exec(own, id, container.Command{Args: r.Long, Stdout: io.Discard, Stderr: io.Discard}, func() error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a command whose caller goes: %v", err)
	}
	for _, id := range []string{id, "nobody.0"} {
		if err := r.EndCommands(ctx, id); err != nil {
			t.Errorf("end commands of %s: %v", id, err)
		}
	}
	if err := r.KeepOutput(ctx, "nobody.0"); err != nil && !errs.Is(err, errs.Precondition) {
		t.Errorf("keep the output of a container that is not there: %v", err)
	}
}

func started() error { return nil }

func (Rig) do(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func presence(ctx context.Context, t *testing.T, r Rig, want map[string]task.Presence) {
	t.Helper()
	found, err := r.List(ctx)
	if err != nil || len(found) != len(want) {
		t.Errorf("found %+v, %v, want %v", found, err, want)
	}
	for _, f := range found {
		if p, ok := want[f.ID]; !ok || p != f.Presence {
			t.Errorf("%s is %d, want %d", f.ID, f.Presence, p)
		}
	}
}

// Look is the health check that the image of a rig brings.
func Look() *typesv1.Probe { return &typesv1.Probe{Test: []string{"CMD", "look"}} }
