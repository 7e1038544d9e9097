package reconcile_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/agenttest"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/idpool"
	"github.com/shoalproject/shoal/services/agent/internal/reconcile"
	"github.com/shoalproject/shoal/services/agent/internal/report"
)

const (
	ready    = typesv1.TaskState_TASK_STATE_READY
	starting = typesv1.TaskState_TASK_STATE_STARTING
	running  = typesv1.TaskState_TASK_STATE_RUNNING
	shutdown = typesv1.TaskState_TASK_STATE_SHUTDOWN
	failed   = typesv1.TaskState_TASK_STATE_FAILED
	rejected = typesv1.TaskState_TASK_STATE_REJECTED
)

// agent is one agent process's loop on a host.
type agent struct {
	*reconcile.Loop
	t         *testing.T
	ctx       context.Context
	outbox    *report.Outbox
	said      map[string]*typesv1.TaskObserved // the latest of each task, as the cluster hears it
	stop      func()
	deaf      atomic.Bool // its machine's meshproxy makes no tables
	mu        sync.Mutex  // guards withdrawn: several may end at once
	withdrawn []string
}

func (a *agent) Withdraw(_ context.Context, id string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.withdrawn = append(a.withdrawn, id)
	return nil
}

func (a *agent) Wire(context.Context, string) error {
	if a.deaf.Load() {
		return errs.New(errs.Unavailable, "the meshproxy does not listen")
	}
	return nil
}

func (a *agent) Offer(string) error { return nil }

func (a *agent) Unwire(context.Context, string) error { return nil }

// start begins an agent's life on the host. It ends with the test, with stop, or with the host's Crash and stop.
func start(t *testing.T, host *agenttest.Host) *agent {
	t.Helper()
	env := host.Env(testx.Env(t))
	a := &agent{t: t, outbox: report.New(), said: map[string]*typesv1.TaskObserved{}}
	a.Loop = reconcile.New(reconcile.Parts{IDs: idpool.New(1<<30, 8),
		Log: env.Log, Now: env.Now, Cluster: "c1", Node: container.Node{ID: "node1", Hostname: "m1"}, Executor: env.Executor, Network: env.Network, Files: env.Vault, Journal: env.Journal,
		Mesh: a, Outbox: a.outbox,
	})
	ctx, cancel := context.WithCancel(t.Context())
	a.ctx = ctx
	g := run.NewGroup(env.Log)
	g.Go("loop", a.Run)
	g.Go("workers", a.Workers)
	done := make(chan error, 1)
	go func() { done <- g.Wait(ctx) }()
	a.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		a.stop = func() {}
	}
	t.Cleanup(func() { a.stop() })
	a.settle(0)
	return a
}

// settle lets everything happen that happens within d, and hears what is said.
func (a *agent) settle(d time.Duration) {
	pass(a.t, d+50*time.Millisecond)
	synctest.Wait()
	for _, s := range a.outbox.Pending(1000) {
		old := a.said[s.GetTaskId()]
		if now := s.GetObserved(); old != nil && now.GetAttempt() <= old.GetAttempt() && (now.GetState() < old.GetState() || now.GetSeq() < old.GetSeq()) {
			a.t.Errorf("task %s fell from %v to %v", s.GetTaskId(), old, now)
		}
		a.said[s.GetTaskId()] = s.GetObserved()
	}
}

func (a *agent) assign(as *dispatcherv1.Assignment) {
	a.t.Helper()
	if err := a.Assign(a.ctx, as); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) expect(id string, state typesv1.TaskState, isReady bool, message string) {
	a.t.Helper()
	got := a.said[id]
	if got.GetState() != state || got.GetReady() != isReady || !strings.Contains(got.GetMessage(), message) {
		a.t.Errorf("task %s is %v, wanted %v, ready %v, %q", id, got, state, isReady, message)
	}
}

func version(revision uint64) *typesv1.Version {
	return &typesv1.Version{Epoch: &typesv1.Epoch{Number: 1, Nonce: 7}, Revision: revision}
}

func whole(revision uint64, tasks ...*dispatcherv1.AssignedTask) *dispatcherv1.Assignment {
	return &dispatcherv1.Assignment{Generation: version(revision), Full: true, Tasks: tasks, Blocks: []string{"10.128.1.0/24"}}
}

func change(revision uint64, tasks ...*dispatcherv1.AssignedTask) *dispatcherv1.Assignment {
	return &dispatcherv1.Assignment{Generation: version(revision), Tasks: tasks, Blocks: []string{"10.128.1.0/24"}}
}

func assigned(id string, desired typesv1.TaskState, stopRevision uint64) *dispatcherv1.AssignedTask {
	return &dispatcherv1.AssignedTask{
		TaskId: id, Desired: desired, SpecHash: []byte("h-" + id), StopRevision: stopRevision,
		Addresses: []*typesv1.TaskAddress{{Addresses: []string{"10.128.1.9/32"}}},
		Spec:      &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "img-" + id, StopGracePeriod: durationpb.New(3 * time.Second)}},
	}
}

func ids(host *agenttest.Host) (all []string) {
	for _, c := range host.Containers() {
		all = append(all, c.ID)
	}
	return all
}

func newHost() *agenttest.Host { return agenttest.NewHost("h1", run.NewRand(1)) }

// pass lets virtual time pass.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	if err := run.Sleep(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}
