package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/network"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// TestLife: pulled by hosts.toml, run, its exit code, its output in a file; then nothing is left.
func TestLife(t *testing.T) {
	r := newRig(t)
	s := r.spec("ended.0", "exit", "42")
	s.Container.User = "app"
	r.run(t, s)
	if exit := r.wait(t, s.ID); exit != (task.Exit{Code: 42}) {
		t.Errorf("exit %+v", exit)
	}
	want := "probe exit /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin hello 1234 99"
	until(t, "its logger has written what it said", func() bool { return strings.Contains(r.log(t, s.ID), want) })
	found, err := r.List(t.Context())
	if err != nil || len(found) != 1 || found[0].Presence != task.Ended || found[0].Exit.Code != 42 {
		t.Fatalf("a container that ended is listed as %+v, %v", found, err)
	}
	exit, err := r.Remove(t.Context(), s.ID, container.Stop{})
	if err != nil || exit == nil || exit.Code != 42 {
		t.Errorf("remove: %+v, %v", exit, err)
	}
	if exit, err := r.Remove(t.Context(), s.ID, container.Stop{}); err != nil || exit != nil {
		t.Errorf("remove again: %+v, %v", exit, err)
	}
	if _, err := r.Wait(t.Context(), s.ID); !errs.Is(err, errs.NotFound) {
		t.Errorf("wait for what is gone: %v", err)
	}
}

// TestSandbox: the container runs in the namespace that it is given, with the files that it is given, and as many limits.
func TestSandbox(t *testing.T) {
	r := newRig(t)
	k := network.New(filepath.Join(filepath.Dir(r.config), "run"))
	s := r.spec("boxed.0")
	box, err := k.Make(t.Context(), container.Wiring{ID: s.ID, Hostname: s.Hostname})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := k.Remove(context.Background(), s.ID); err != nil {
			t.Error(err)
		}
	}()
	s.Sandbox, s.Container.ReadOnly = box, true
	proc := fmt.Sprintf("/proc/%d", r.run(t, s))
	own, err1 := os.Stat(proc + "/ns/net")
	given, err2 := os.Stat(box.NetNS)
	if err := errors.Join(err1, err2); err != nil || !os.SameFile(own, given) {
		t.Errorf("the container is in another network namespace: %v", err)
	}
	for file, want := range map[string]string{
		"root/etc/hostname": "host-boxed\n",
		"root/etc/hosts":    "localhost",
		"status":            "Seccomp:\t2",
		"cgroup":            "/shoal/boxed.0",
	} {
		got, err := os.ReadFile(filepath.Join(proc, file))
		if err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s: %q lacks %q, %v", file, got, want, err)
		}
	}
	if err := os.WriteFile(proc+"/root/new", nil, 0o600); err == nil {
		t.Error("the root file system can be written to")
	}
	if _, err := r.Remove(t.Context(), s.ID, container.Stop{}); err != nil {
		t.Error(err)
	}
}

// TestStop: the image's stop signal is sent, the grace kept, and who does not listen is killed after it.
func TestStop(t *testing.T) {
	r := newRig(t)
	polite, deaf := r.spec("polite.0", "polite"), r.spec("deaf.0", "deaf")
	deaf.Container.StopSignal = "TERM"
	r.run(t, polite)
	r.run(t, deaf)
	until(t, "polite runs", func() bool { return strings.Contains(r.log(t, polite.ID), "probe") })
	until(t, "deaf runs", func() bool { return strings.Contains(r.log(t, deaf.ID), "probe") })
	exit, err := r.Remove(t.Context(), polite.ID, container.Stop{Grace: 10 * time.Second})
	if err != nil || exit == nil || exit.Code != 7 {
		t.Errorf("polite: %+v, %v", exit, err)
	}
	if !strings.Contains(r.log(t, polite.ID), "asked to stop") {
		t.Error("polite was not asked")
	}
	began := time.Now()
	exit, err = r.Remove(t.Context(), deaf.ID, container.Stop{Signal: "SIGTERM", Grace: 500 * time.Millisecond})
	if took := time.Since(began); err != nil || exit == nil || exit.Code != 137 || took < 500*time.Millisecond {
		t.Errorf("deaf: %+v, %v after %v", exit, err, took)
	}
}

// TestInit: with a small init the program is not process 1, hears its signals, its exit code is the container's, and what it
// leaves behind is taken away.
func TestInit(t *testing.T) {
	r := newRig(t)
	polite, orphan := r.spec("polite.0", "polite"), r.spec("orphan.0", "orphan")
	polite.Container.Init, orphan.Container.Init = true, true
	r.run(t, polite)
	pid := r.run(t, orphan)
	until(t, "polite runs", func() bool { return strings.Contains(r.log(t, polite.ID), "probe") })
	exit, err := r.Remove(t.Context(), polite.ID, container.Stop{Grace: 10 * time.Second})
	if err != nil || exit == nil || exit.Code != 7 {
		t.Errorf("polite: %+v, %v", exit, err)
	}
	until(t, "the orphan was made", func() bool { return strings.Contains(r.log(t, orphan.ID), "left an orphan") })
	until(t, "no orphan is left", func() bool { return len(children(pid)) == 1 })
}

// children are the processes, also ended ones, whose parent this is.
func children(parent int64) (pids []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		data, err := os.ReadFile(file)
		_, rest, _ := strings.Cut(string(data), ") ") // the name may have blanks
		if f := strings.Fields(rest); err == nil && len(f) > 1 && f[1] == fmt.Sprint(parent) {
			pids = append(pids, filepath.Base(filepath.Dir(file)))
		}
	}
	return pids
}

// TestTakeover: neither the agent's end nor containerd's touches a container; who comes back finds it and its exit.
func TestTakeover(t *testing.T) {
	r := newRig(t)
	stays, ends := r.spec("stays.1"), r.spec("ends.0", "exit", "5")
	pid := r.run(t, stays)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.stopDaemon(t)
	if err := alive(pid); err != nil {
		t.Fatalf("the container died with containerd: %v", err)
	}
	r.startDaemon(t)
	r.Executor = r.again(t)
	found, err := r.List(t.Context())
	if err != nil || len(found) != 1 {
		t.Fatalf("found %v, %v", found, err)
	}
	f := found[0]
	if f.ID != "stays.1" || f.Presence != task.Running || f.PID != pid || f.Origin.Task != "stays" || f.Origin.Attempt != 1 ||
		f.Origin.Slot != 3 || !slices.Equal(f.Origin.SpecHash, []byte{0xab}) || f.Origin.Generation != "1/5" {
		t.Errorf("found %+v", f)
	}
	if again, err := r.Start(t.Context(), stays.ID); err != nil || again != pid {
		t.Errorf("starting what runs: pid %d, %v", again, err)
	}
	r.run(t, ends)
	waited := make(chan task.Exit, 1)
	go func() {
		if exit, err := r.Wait(context.Background(), stays.ID); err == nil {
			waited <- exit
		}
	}()
	if _, err := r.Remove(t.Context(), stays.ID, container.Stop{Signal: "SIGKILL", Grace: time.Second}); err != nil {
		t.Error(err)
	}
	select {
	case exit := <-waited:
		if exit.Code != 137 {
			t.Errorf("exit %+v", exit)
		}
	case <-time.After(10 * time.Second):
		t.Error("nobody told that it ended")
	}
}

// TestRefusals: what can't work is told in the registry's or the runtime's words; a stranger's container is not seen.
func TestRefusals(t *testing.T) {
	r := newRig(t)
	absent := r.spec("absent.0")
	absent.Container.Image = r.registry.host + "/repo:nope"
	if err := r.Prepare(t.Context(), absent); err == nil || !strings.Contains(err.Error(), "has no such image (404)") || errs.Is(err, errs.Unavailable) {
		t.Errorf("an image that does not exist: %v", err)
	}
	bad := r.spec("bad.0")
	bad.Container.Image = "UPPER CASE"
	if err := r.Prepare(t.Context(), bad); !errs.Is(err, errs.Invalid) {
		t.Errorf("a reference that is none: %v", err)
	}
	nothing := r.spec("nothing.0")
	nothing.Container.Command = []string{"/no/such/program"}
	if err := r.Prepare(t.Context(), nothing); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Start(t.Context(), nothing.ID); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("a program that does not exist: %v", err)
	}
	stranger := r.spec("stranger.0")
	stranger.Origin.Cluster = "c2"
	if err := r.Prepare(t.Context(), stranger); err != nil {
		t.Fatal(err)
	}
	found, err := r.List(t.Context())
	if err != nil || len(found) != 1 || found[0].ID != nothing.ID {
		t.Errorf("found %+v, %v", found, err)
	}
	if _, err := r.Remove(t.Context(), stranger.ID, container.Stop{}); err != nil {
		t.Error(err)
	}
}

// TestMemory: a container that is killed for its memory limit says so.
func TestMemory(t *testing.T) {
	r := newRig(t)
	s := r.spec("eats.0", "eat")
	s.Resources = &typesv1.ResourceRequirements{Limits: &typesv1.Resources{MemoryBytes: 32 << 20, NanoCpus: 5e8, Pids: 100}}
	r.run(t, s)
	if exit := r.wait(t, s.ID); exit != (task.Exit{Code: 137, OOM: true}) {
		t.Errorf("exit %+v", exit)
	}
}

// TestManyAtOnce: containers of one image cost one question to the registry.
func TestManyAtOnce(t *testing.T) {
	r := newRig(t)
	const n = 10
	began := time.Now()
	done := make(chan error, n)
	for i := range n {
		go func() {
			s := r.spec(fmt.Sprintf("many%d.0", i))
			err := r.Prepare(context.Background(), s)
			if err == nil {
				_, err = r.Start(context.Background(), s.ID)
			}
			done <- err
		}()
	}
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d containers in %v", n, time.Since(began))
	if asked := r.registry.asked.Load(); asked != 1 {
		t.Errorf("the registry was asked %d times", asked)
	}
}
