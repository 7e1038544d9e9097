package executor

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/logger"
	"github.com/shoalproject/shoal/services/agent/internal/pull"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// rig is a containerd of the test's own, with an executor on it.
type rig struct {
	*Executor
	cfg      Config
	registry *registry
	daemon   *exec.Cmd
	config   string
	programs string // the folder of containerd and its shim; empty: those on the PATH
}

// otherContainerd names a folder with a containerd and its shim: the one to test with, where it is not the machine's own. It runs by
// its own defaults, Kubernetes' part and all, as one does that somebody unpacks.
const otherContainerd = "SHOAL_CONTAINERD"

func newRig(t *testing.T) *rig { return newRigWith(t, os.Getenv(otherContainerd)) }

// newRigWith has a containerd from a folder, or, without one, the machine's own.
func newRigWith(t *testing.T, programs string) *rig {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it starts a containerd of its own")
	}
	if _, err := exec.LookPath(filepath.Join(programs, "containerd")); err != nil {
		t.Skip("needs containerd: apt-get install containerd runc")
	}
	dir, err := os.MkdirTemp("", "shoal-exec") //nolint:usetesting // its long name does not fit into the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { // as /run/containerd is: the runtime goes through it as a container's root
		t.Fatal(err)
	}
	r := &rig{config: filepath.Join(dir, "config.toml"), programs: programs, cfg: Config{
		Socket: filepath.Join(dir, "c.sock"), Namespace: fmt.Sprintf("shoal-test-%d", os.Getpid()), Snapshotter: "overlayfs",
		Pull: pull.Config{CertsDir: filepath.Join(dir, "certs.d")}, Logs: filepath.Join(dir, "logs"), Cluster: "c1", Parallel: 8,
		Volumes: filepath.Join(dir, "volumes"), Pins: filepath.Join(dir, "run", "volumes"),
	}}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("something is left mounted: %v", err)
		}
		// The runtime makes these and leaves them; they are only ours when they are empty.
		_ = os.Remove(filepath.Join("/run/containerd/runc", r.cfg.Namespace))
		for _, group := range []string{"/shoal", "/" + r.cfg.Namespace} { // our containers', a bare client's
			parents, _ := filepath.Glob("/sys/fs/cgroup/*" + group)
			for _, parent := range parents {
				_ = os.Remove(parent)
			}
		}
	})
	program, err := logger.Program("")
	if err != nil {
		t.Fatal(err)
	}
	r.cfg.Logger = program
	if err := os.WriteFile(r.config, []byte(r.daemonConfig(dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	r.startDaemon(t)
	t.Cleanup(func() { r.stopDaemon(t) })
	r.Executor = r.again(t)
	t.Cleanup(func() { r.wipe(t) })
	r.registry = newRegistry(t, r.cfg.Pull.CertsDir)
	r.machine.Init = r.registry.probe
	return r
}

// again is what a restarted agent has.
func (r *rig) again(t *testing.T) *Executor {
	t.Helper()
	e, err := New(r.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "containerd serves", func() bool {
		_, err := e.Version(t.Context())
		return err == nil
	})
	return e
}

// daemonConfig keeps all that containerd has in one folder.
func (r *rig) daemonConfig(dir string) string {
	own := fmt.Sprintf("root = %q\nstate = %q\n[grpc]\naddress = %q\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = %q\n",
		filepath.Join(dir, "root"), filepath.Join(dir, "state"), r.cfg.Socket, filepath.Join(dir, "opt"))
	if r.programs == "" {
		return "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n" + own
	}
	return "version = 3\n" + own + fmt.Sprintf("[plugins.\"io.containerd.nri.v1.nri\"]\nsocket_path = %q\n", filepath.Join(dir, "nri.sock"))
}

func (r *rig) startDaemon(t *testing.T) {
	t.Helper()
	r.daemon = exec.Command(filepath.Join(r.programs, "containerd"), "--config", r.config)
	r.daemon.Env = append(os.Environ(), "PATH="+r.programs+":"+os.Getenv("PATH")) // where it looks for its shim
	if testing.Verbose() {
		r.daemon.Stderr = os.Stderr
	}
	if err := r.daemon.Start(); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) stopDaemon(t *testing.T) {
	t.Helper()
	if r.daemon == nil {
		return
	}
	_ = r.daemon.Process.Kill()
	_ = r.daemon.Wait()
	r.daemon = nil
}

func (r *rig) wipe(t *testing.T) {
	t.Helper()
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := r.Sweep(ctx, func(string) bool { return false }); err != nil {
		t.Error(err)
	}
	left, err := r.List(ctx)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func (r *rig) spec(id string, args ...string) container.Spec {
	taskID, attempt, _ := container.TaskOf(id)
	return container.Spec{
		ID: id, Hostname: "host-" + taskID,
		Origin:    container.Origin{Cluster: "c1", Task: taskID, Attempt: attempt, SpecHash: []byte{0xab}, Generation: "1/5", Service: "s", Slot: 3},
		Container: &typesv1.ContainerSpec{Image: r.registry.host + "/repo:1", Args: args},
	}
}

func (r *rig) run(t *testing.T, s container.Spec) int64 {
	t.Helper()
	if err := r.Prepare(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	pid, err := r.Start(t.Context(), s.ID)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func (r *rig) wait(t *testing.T, id string) task.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	exit, err := r.Wait(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

func (r *rig) log(t *testing.T, id string) string {
	t.Helper()
	var text strings.Builder
	for _, l := range r.lines(t, id, nil) {
		text.Write(append(l.GetText(), '\n'))
	}
	return text.String()
}

// lines are what a container's task has written, up to now.
func (r *rig) lines(t *testing.T, id string, o *logsv1.LogOptions) []*logsv1.LogLine {
	t.Helper()
	taskID, _, _ := container.TaskOf(id)
	var all []*logsv1.LogLine
	err := r.ReadLog(t.Context(), taskID, &logsv1.ReadLogRequest{Options: o}, func(context.Context) bool { return false },
		func(b *logsv1.ReadLogResponse) error {
			all = append(all, b.GetLines()...)
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// until waits for what another process does.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long until %s", what)
		}
	}
}

// alive asks whether a process is there.
func alive(pid int64) error { return syscall.Kill(int(pid), 0) }
