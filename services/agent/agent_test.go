package agent_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent"
	"github.com/shoalproject/shoal/services/agent/agenttest"
)

// dispatcher assigns one task to whoever comes, and notes what it hears.
type dispatcher struct {
	dispatcherv1.UnimplementedSessionServiceServer

	mu     sync.Mutex // guards all below
	hello  *dispatcherv1.Hello
	caller string
	latest map[string]*typesv1.TaskObserved
}

func (d *dispatcher) Session(s grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		for _, r := range d.hear(s.Context(), m) {
			if err := s.Send(r); err != nil {
				return err
			}
		}
	}
}

func (d *dispatcher) hear(ctx context.Context, m *dispatcherv1.SessionRequest) []*dispatcherv1.SessionResponse {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch m := m.GetMessage().(type) {
	case *dispatcherv1.SessionRequest_Hello:
		caller, _ := rpc.CallerOf(ctx)
		d.hello, d.caller = m.Hello, caller.Principal.Member()
		return []*dispatcherv1.SessionResponse{
			{Message: &dispatcherv1.SessionResponse_Welcome{Welcome: &dispatcherv1.Welcome{
				Session: 1, HeartbeatPeriod: durationpb.New(500 * time.Millisecond), HeartbeatTimeout: durationpb.New(2 * time.Second),
			}}},
			{Message: &dispatcherv1.SessionResponse_Assignment{Assignment: &dispatcherv1.Assignment{
				Generation: &typesv1.Version{Epoch: &typesv1.Epoch{Number: 1}, Revision: 3}, Full: true,
				Tasks: []*dispatcherv1.AssignedTask{{
					TaskId: "t1", Desired: typesv1.TaskState_TASK_STATE_RUNNING, SpecHash: []byte{1},
					Spec: &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "micro:1"}},
				}},
			}}},
		}
	case *dispatcherv1.SessionRequest_Heartbeat:
		return []*dispatcherv1.SessionResponse{{Message: &dispatcherv1.SessionResponse_HeartbeatAck{
			HeartbeatAck: &dispatcherv1.HeartbeatAck{Seq: m.Heartbeat.GetSeq()},
		}}}
	case *dispatcherv1.SessionRequest_Status:
		for _, s := range m.Status.GetTasks() {
			d.latest[s.GetTaskId()] = s.GetObserved()
		}
		return []*dispatcherv1.SessionResponse{{Message: &dispatcherv1.SessionResponse_StatusAck{
			StatusAck: &dispatcherv1.StatusAck{Seq: m.Status.GetSeq()},
		}}}
	}
	return nil
}

// TestRun tells the whole of it over mutual TLS: the agent finds the dispatcher in its directory, is assigned a task, runs
// it and says so; killed and started again, it says so again and starts nothing.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		ca := identitytest.New(t, env, "c1")
		d := &dispatcher{latest: map[string]*typesv1.TaskObserved{}}
		serve(t, env, ca, d)
		ca.Write(t, env, "/var/lib/shoal/agent/identity", identitytest.Leaf{URIs: []string{ca.ID(authzv1.Role_ROLE_AGENT, "m1").URI()}})
		err := directory.Write(env.Files, "/var/lib/shoal/agent/directory.json", &cav1.Directory{Entries: []*cav1.DirectoryEntry{
			{Role: authzv1.Role_ROLE_DISPATCHER, MachineId: "d1", Addresses: []string{"d1:2383"}, Weight: 1},
		}})
		if err != nil {
			t.Fatal(err)
		}
		host := agenttest.NewHost("h1", env.Rand)
		bootID := ""
		for life := range 2 {
			stop := start(t, host.Env(env))
			pass(t, 5*time.Second)
			d.mu.Lock()
			got, hello := d.latest["t1"], d.hello
			d.latest = map[string]*typesv1.TaskObserved{}
			d.mu.Unlock()
			if life == 0 && (got.GetState() != typesv1.TaskState_TASK_STATE_RUNNING || !got.GetReady()) {
				t.Errorf("life %d: t1 is %v", life, got)
			}
			if d.caller != "agent/m1" || hello.GetBootId() == "" || hello.GetDescription().GetRuntimeVersion() != "hollow" {
				t.Errorf("life %d: %s said %v", life, d.caller, hello)
			}
			if life == 1 && (hello.GetBootId() != bootID || hello.GetGeneration().GetRevision() != 3) {
				t.Errorf("the second hello forgot boot id or generation: %v", hello)
			}
			bootID = hello.GetBootId()
			host.Crash()
			stop()
		}
		if host.Starts() != 1 || len(host.Containers()) != 1 || !host.Containers()[0].Running {
			t.Errorf("%d starts, %v", host.Starts(), host.Containers())
		}
	})
}

func serve(t *testing.T, env run.Env, ca *identitytest.Authority, d *dispatcher) {
	t.Helper()
	own := env
	own.Metrics = nil
	s := rpc.NewServer(own, ca.Keeper(t, env, ca.ID(authzv1.Role_ROLE_DISPATCHER, "d1")))
	dispatcherv1.RegisterSessionServiceServer(s.GRPC(), d)
	background(t, env, s.Serve([]string{"d1:2383"}))
}

func start(t *testing.T, env agent.Env) (stop func()) {
	t.Helper()
	cfg := agent.DefaultConfig()
	cfg.Advertise = []string{"192.0.2.1"}
	env.Env.Metrics = nil
	env.Env = env.OrMachine("agent")
	return background(t, env.Env, func(ctx context.Context) error { return agent.Run(ctx, cfg, env) })
}

func background(t *testing.T, env run.Env, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) })
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if r := <-done; r.Err != nil {
			t.Error(r.Err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func pass(t *testing.T, d time.Duration) {
	t.Helper()
	if err := run.Sleep(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// TestConfig: all faults are told at once.
func TestConfig(t *testing.T) {
	cfg, err := config.Parse("x", []byte("advertise: [192.0.2.1]\nparallel: 4\n"), agent.DefaultConfig())
	if err != nil || cfg.Parallel != 4 || cfg.Namespace != "shoal" {
		t.Errorf("%+v, %v", cfg, err)
	}
	_, err = config.Parse("x", []byte("parallel: 0\nmesh_socket: here\nnamespace: ''\n"), agent.DefaultConfig())
	for _, field := range []string{"advertise", "parallel", "mesh_socket", "namespace"} {
		if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not told: %v", field, err)
		}
	}
}
