package executor

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/idpool"
	"github.com/shoalproject/shoal/services/agent/internal/journal"
	"github.com/shoalproject/shoal/services/agent/internal/memfs"
	"github.com/shoalproject/shoal/services/agent/internal/network"
	"github.com/shoalproject/shoal/services/agent/internal/reconcile"
	"github.com/shoalproject/shoal/services/agent/internal/report"
)

// ownMachine marks the process that has a network of its own.
const ownMachine = "SHOAL_TEST_OWN_MACHINE"

// TestWhole is the agent's loop with everything real: an assignment of twenty tasks on two networks, all running, a new
// life of the agent that changes nothing, and all stopped, with nothing left.
func TestWhole(t *testing.T) {
	if os.Getenv(ownMachine) == "" {
		if os.Getuid() != 0 {
			t.Skip("needs root: it makes a machine of its own")
		}
		again := exec.Command(os.Args[0], "-test.run", "^TestWhole$", "-test.v", "-test.timeout", "120s")
		again.Env = append(os.Environ(), ownMachine+"=1")
		again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		out, err := again.CombinedOutput()
		if err != nil || testing.Verbose() {
			t.Logf("%s", out)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	bridges(t)
	r := newRig(t)
	k := network.New(filepath.Join(filepath.Dir(r.config), "run"))
	j, err := journal.Open(filepath.Join(filepath.Dir(r.config), "journal.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()

	const n = 20
	first := r.live(t, k, j)
	began := time.Now()
	first.assign(t, r.tasks(n, typesv1.TaskState_TASK_STATE_RUNNING, 3))
	first.all(t, n, typesv1.TaskState_TASK_STATE_RUNNING)
	t.Logf("%d tasks running after %v", n, time.Since(began))
	pids := first.pids()
	first.end()

	second := r.live(t, k, j)
	second.assign(t, r.tasks(n, typesv1.TaskState_TASK_STATE_RUNNING, 4))
	second.all(t, n, typesv1.TaskState_TASK_STATE_RUNNING)
	found, err := r.List(t.Context())
	if err != nil || len(found) != n {
		t.Fatalf("%d containers, %v", len(found), err)
	}
	for _, f := range found {
		if pids[f.Origin.Task] != f.PID {
			t.Errorf("%s was restarted: pid %d, before %d", f.ID, f.PID, pids[f.Origin.Task])
		}
	}
	began = time.Now()
	second.assign(t, r.tasks(n, typesv1.TaskState_TASK_STATE_SHUTDOWN, 5))
	second.Barrier(t.Context(), generation(5))
	second.all(t, n, typesv1.TaskState_TASK_STATE_SHUTDOWN)
	t.Logf("%d tasks gone after %v", n, time.Since(began))
	second.end()
	for _, dir := range []string{"netns", "containers"} {
		if left, _ := os.ReadDir(filepath.Join(filepath.Dir(r.config), "run", dir)); len(left) > 0 {
			t.Errorf("%s holds %v", dir, left)
		}
	}
}

// life is one agent process without its line to the cluster.
type life struct {
	*reconcile.Loop
	outbox *report.Outbox
	end    func()
}

func (r *rig) live(t *testing.T, k *network.Kernel, j journal.Journal) *life {
	t.Helper()
	l := &life{outbox: report.New()}
	l.Loop = reconcile.New(reconcile.Parts{IDs: idpool.New(1<<30, 8),
		Log: testx.Logger(t), Now: time.Now, Cluster: "c1", Executor: r.Executor, Network: k, Files: memfs.New(filepath.Join(t.TempDir(), "secrets")), Journal: j, Outbox: l.outbox,
	})
	ctx, cancel := context.WithCancel(t.Context())
	g := run.NewGroup(testx.Logger(t))
	g.Go("loop", l.Run)
	g.Go("workers", l.Workers)
	done := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, g.Wait(ctx) })
	l.end = func() {
		cancel()
		if r := <-done; r.Err != nil {
			t.Error(r.Err)
		}
	}
	<-l.Adopted()
	return l
}

func (l *life) assign(t *testing.T, tasks []*dispatcherv1.AssignedTask) {
	t.Helper()
	err := l.Assign(t.Context(), &dispatcherv1.Assignment{
		Generation: generation(tasks[0].GetStopRevision()), Full: true, Tasks: tasks, Blocks: []string{"10.128.1.0/24"},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (l *life) all(t *testing.T, n int, state typesv1.TaskState) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		changed, count := l.outbox.Changed(), 0
		for _, s := range l.outbox.Pending(1000) {
			if s.GetObserved().GetState() == state {
				count++
			}
			if s.GetObserved().GetState() > state {
				t.Fatalf("%v", s)
			}
		}
		if count == n {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%d of %d are %s: %v", count, n, state, l.outbox.Pending(1000))
		}
	}
}

func (l *life) pids() map[string]int64 {
	pids := map[string]int64{}
	for _, s := range l.outbox.Pending(1000) {
		pids[s.GetTaskId()] = s.GetObserved().GetPid()
	}
	return pids
}

func (r *rig) tasks(n int, desired typesv1.TaskState, revision uint64) (tasks []*dispatcherv1.AssignedTask) {
	for i := range n {
		tasks = append(tasks, &dispatcherv1.AssignedTask{
			TaskId: fmt.Sprintf("task%d", i), Desired: desired, SpecHash: []byte{1}, StopRevision: revision,
			Spec: &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Healthcheck: &typesv1.Probe{Test: []string{"NONE"}}, Image: r.registry.host + "/repo:1", StopSignal: "SIGTERM"}},
			Addresses: []*typesv1.TaskAddress{
				{Addresses: []string{fmt.Sprintf("10.128.1.%d/32", i+2)}},
				{NetworkId: "n1", Addresses: []string{fmt.Sprintf("10.0.16.%d/20", i+2)}},
			},
			Networks: []*dispatcherv1.AssignedNetwork{{NetworkId: "n1", Name: "front", Vni: 4097, Subnets: []string{"10.0.16.0/20"}}},
		})
	}
	return tasks
}

func generation(revision uint64) *typesv1.Version {
	return &typesv1.Version{Epoch: &typesv1.Epoch{Number: 1}, Revision: revision}
}

// bridges makes what a meshproxy would have made, and sees to it that this is no real machine.
func bridges(t *testing.T) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Type() == "veth" || strings.HasPrefix(l.Attrs().Name, "e") && l.Type() == "device" {
			t.Fatalf("this is a real machine: it has %s", l.Attrs().Name)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"shoal0", "shoalbr4097"} {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1450, Flags: net.FlagUp}}); err != nil {
			t.Fatal(err)
		}
	}
}
