package session_test

import (
	"context"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/replica"
	"github.com/shoalproject/shoal/internal/replica/replicatest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/barrier"
	"github.com/shoalproject/shoal/services/dispatcher/internal/bulletin"
	"github.com/shoalproject/shoal/services/dispatcher/internal/liveness"
	"github.com/shoalproject/shoal/services/dispatcher/internal/load"
	"github.com/shoalproject/shoal/services/dispatcher/internal/session"
	"github.com/shoalproject/shoal/services/dispatcher/internal/status"
)

const self = "d1"

// rig is one dispatcher's parts over a store in memory, in a bubble.
type rig struct {
	sessions *session.Server
	t        *testing.T
	data     *payloads
	store    *replicatest.Store
	conn     *grpc.ClientConn
	mesh     *barrier.Barrier
	way      *busy // to the store
	stop     context.CancelFunc
}

func times() liveness.Times {
	return liveness.Times{Period: 500 * time.Millisecond, Suspect: 2 * time.Second, Down: 4 * time.Second, Lease: 2 * time.Second}
}

func newRig(t *testing.T, objects ...*typesv1.Object) *rig {
	t.Helper()
	return newRigOf(t, func(*session.Parts) {}, objects...)
}

// newRigOf has one of the parts replaced.
func newRigOf(t *testing.T, replace func(*session.Parts), objects ...*typesv1.Object) *rig {
	t.Helper()
	return newRigAt(t, times(), replace, objects...)
}

// newRigAt has other times, too.
func newRigAt(t *testing.T, times liveness.Times, replace func(*session.Parts), objects ...*typesv1.Object) *rig {
	t.Helper()
	env := testx.Env(t)
	store := replicatest.New(env, append(objects,
		state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c1"}}),
		state.Wrap(&typesv1.Member{
			Meta: &typesv1.Meta{Id: "dispatcher/d1"}, Role: authzv1.Role_ROLE_DISPATCHER, MachineId: self,
		}))...)
	conn := store.Dial(t)
	way := &busy{Client: storev1.NewCommitServiceClient(conn)}
	commits := commit.New(way, env.Rand)
	view := replica.New(env, storev1.NewWatchServiceClient(conn))
	table := liveness.NewTable()
	monitor := liveness.New(self, env, view, commits, table, times)
	mesh := barrier.New(self, "dispatcher/d1", env.Log, view, commits, monitor.Live, 2*time.Second)
	statuses := status.New(self, env, view, commits)
	data := &payloads{data: map[string]string{}}
	parts := session.Parts{
		Self: self, Env: env, View: view, Commit: commits, Statuses: statuses, Payloads: data, Table: table, Barrier: mesh, Board: new(bulletin.Board),
		Refusal: func() error { return nil }, Usage: load.New(self, env, view, commits),
	}
	replace(&parts)
	sessions := session.New(parts, session.Options{Times: times})
	server := grpc.NewServer(grpc.ChainStreamInterceptor(errs.StreamServer(), asNode))
	dispatcherv1.RegisterSessionServiceServer(server, sessions)

	ctx, cancel := context.WithCancel(t.Context())
	l, err := env.Net.Listen(ctx, "tcp", "d1:2383")
	if err != nil {
		t.Fatal(err)
	}
	g := run.NewGroup(env.Log)
	for name, f := range map[string]run.Task{
		"view": view.Run, "liveness": monitor.Run, "barrier": mesh.Run, "status": statuses.Run, "sessions": sessions.Run,
	} {
		g.Go(name, f)
	}
	done := make(chan error, 2)
	go func() { done <- g.Wait(ctx) }()
	go func() { done <- server.Serve(l) }()
	client, err := grpc.NewClient("passthrough:///d1:2383", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return env.Net.Dial(ctx, "tcp", a) }),
		grpc.WithChainStreamInterceptor(errs.StreamClient()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = client.Close()
		server.Stop()
		<-done
		<-done
	})
	r := &rig{t: t, sessions: sessions, data: data, store: store, conn: client, mesh: mesh, way: way, stop: cancel}
	time.Sleep(time.Second) // the replica's first snapshot
	return r
}

// asNode makes the caller from the metadata: certificates are internal/rpc's to test.
func asNode(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	md, _ := metadata.FromIncomingContext(ss.Context())
	caller := rpc.Caller{Principal: identity.ID{Cluster: "c1", Role: authzv1.Role_ROLE_AGENT, Name: md.Get("node")[0]}}
	return next(srv, withContext{ss, rpc.WithCaller(ss.Context(), caller)})
}

type withContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (w withContext) Context() context.Context { return w.ctx }

// machine is one machine's side of a session.
type machine struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]
	heard  chan *dispatcherv1.SessionResponse
	failed chan error
	end    context.CancelFunc
}

func (r *rig) open(node, boot string) *machine {
	r.t.Helper()
	return r.openSaying(node, &dispatcherv1.Hello{BootId: boot, Addresses: []string{"10.0.0.1"}, HearsTimeout: true})
}

func (r *rig) openSaying(node string, hello *dispatcherv1.Hello) *machine {
	r.t.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(r.t.Context(), "node", node))
	stream, err := dispatcherv1.NewSessionServiceClient(r.conn).Session(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	m := &machine{
		t: r.t, stream: stream, end: cancel,
		heard: make(chan *dispatcherv1.SessionResponse, 1000), failed: make(chan error, 1),
	}
	r.t.Cleanup(cancel)
	hello.Kind = dispatcherv1.SessionKind_SESSION_KIND_NODE
	m.say(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Hello{Hello: hello}})
	go func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				m.failed <- err
				return
			}
			m.heard <- resp
		}
	}()
	return m
}

func (m *machine) say(req *dispatcherv1.SessionRequest) {
	m.t.Helper()
	if err := m.stream.Send(req); err != nil && err != io.EOF {
		m.t.Fatal(err)
	}
}

func (m *machine) beat(seq uint64) {
	m.say(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Heartbeat{
		Heartbeat: &dispatcherv1.Heartbeat{Seq: seq},
	}})
}

// until returns the first message for which f is true, in virtual time.
func (m *machine) until(what string, f func(*dispatcherv1.SessionResponse) bool) *dispatcherv1.SessionResponse {
	m.t.Helper()
	patience := time.NewTimer(30 * time.Second)
	defer patience.Stop()
	for {
		select {
		case resp := <-m.heard:
			if f(resp) {
				return resp
			}
		case err := <-m.failed:
			m.t.Fatalf("waiting for %s: the session ended: %v", what, err)
		case <-patience.C:
			m.t.Fatalf("no %s within 30 s", what)
		}
	}
}

func (m *machine) assignment() *dispatcherv1.Assignment {
	m.t.Helper()
	return m.until("assignment", func(r *dispatcherv1.SessionResponse) bool { return r.GetAssignment() != nil }).GetAssignment()
}

func node(id string) *typesv1.Object {
	return state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: id}})
}

func service() *typesv1.Object {
	return state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: "s1"}, SpecVersion: 1, Spec: &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: "web"},
		Task:        &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "micro"}},
	}})
}

func task(id, nodeID string, desired typesv1.TaskState) *typesv1.Object {
	return state.Wrap(&typesv1.Task{
		Meta: &typesv1.Meta{Id: id}, ServiceId: "s1", SpecVersion: 1,
		Decided: &typesv1.TaskDecided{Slot: 1, NodeId: nodeID, Desired: desired},
	})
}

func (r *rig) state(id string) typesv1.NodeState {
	return r.store.Snapshot().Node(id).GetStatus().GetState()
}

// A machine is told of its own tasks, whole first and then what changed, and of nobody else's.
func TestAssignmentWholeThenDifferences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running := typesv1.TaskState_TASK_STATE_RUNNING
		r := newRig(t, node("n1"), node("n2"), service(), task("t1", "n1", running), task("t2", "n2", running))
		m := r.open("n1", "boot")
		a := m.assignment()
		if !a.GetFull() || len(a.GetTasks()) != 1 || a.GetTasks()[0].GetTaskId() != "t1" {
			t.Fatalf("first assignment: %v, want the whole with t1 alone", a)
		}
		if image := a.GetTasks()[0].GetSpec().GetContainer().GetImage(); image != "micro" {
			t.Fatalf("image %q, want the service's", image)
		}
		r.store.Put(task("t3", "n1", running), task("t4", "n2", running))
		a = m.assignment()
		if a.GetFull() || len(a.GetTasks()) != 1 || a.GetTasks()[0].GetTaskId() != "t3" {
			t.Fatalf("second assignment: %v, want the difference t3", a)
		}
		r.store.Delete(state.Key{Kind: typesv1.Kind_KIND_TASK, ID: "t3"})
		if a = m.assignment(); len(a.GetRemovedTasks()) != 1 || a.GetRemovedTasks()[0] != "t3" {
			t.Fatalf("third assignment: %v, want t3 removed", a)
		}
	})
}

// A silent machine is SUSPECT after 2 s and DOWN after 4 s; a new session brings it back.
func TestTwoStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1"))
		m := r.open("n1", "boot")
		m.assignment()
		for i := range 20 { // 10 s of life
			m.beat(uint64(i + 1))
			time.Sleep(500 * time.Millisecond)
		}
		if got := r.state("n1"); got != typesv1.NodeState_NODE_STATE_READY {
			t.Fatalf("while heard: %s, want READY", got)
		}
		time.Sleep(2 * time.Second)
		if got := r.state("n1"); got != typesv1.NodeState_NODE_STATE_SUSPECT {
			t.Fatalf("after 2.5 s of silence: %s, want SUSPECT", got)
		}
		time.Sleep(2 * time.Second)
		if got := r.state("n1"); got != typesv1.NodeState_NODE_STATE_DOWN {
			t.Fatalf("after 4.5 s of silence: %s, want DOWN", got)
		}
		r.open("n1", "boot").assignment()
		if got := r.state("n1"); got != typesv1.NodeState_NODE_STATE_READY {
			t.Fatalf("in a new session: %s, want READY", got)
		}
	})
}

// A machine is judged by the patience that its welcome has told it: one that beats each 1.5 s has half a second more than others.
func TestWelcomeTellsThePatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := times()
		slow.Period = 1500 * time.Millisecond
		r := newRigAt(t, slow, func(*session.Parts) {}, node("n1"))
		m := r.open("n1", "boot")
		w := m.until("welcome", func(resp *dispatcherv1.SessionResponse) bool { return resp.GetWelcome() != nil }).GetWelcome()
		if p, s := w.GetHeartbeatPeriod().AsDuration(), w.GetHeartbeatTimeout().AsDuration(); p != slow.Period || s != 2500*time.Millisecond {
			t.Errorf("told to beat each %s, and a patience of %s", p, s)
		}
		m.beat(1)
		time.Sleep(2300 * time.Millisecond)
		if got := r.state("n1"); got != typesv1.NodeState_NODE_STATE_READY {
			t.Errorf("after 2.3 s of silence: %s, want READY", got)
		}
		time.Sleep(500 * time.Millisecond)
		if got := r.state("n1"); got != typesv1.NodeState_NODE_STATE_SUSPECT {
			t.Errorf("after 2.8 s of silence: %s, want SUSPECT", got)
		}
	})
}

// Silence that fell into a time without a leader is not counted: nobody could have moved.
func TestNoLeaderCountsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1"))
		m := r.open("n1", "boot")
		m.assignment()
		r.store.SetQuorum(false)
		time.Sleep(10 * time.Second)
		r.store.SetQuorum(true)
		time.Sleep(1500 * time.Millisecond)
		m.beat(1)
		time.Sleep(1500 * time.Millisecond)
		if got := r.state("n1"); got != typesv1.NodeState_NODE_STATE_READY {
			t.Fatalf("after an outage of the store: %s, want READY", got)
		}
	})
}

// The number fences: a newer session ends the older one, and what the older one says changes nothing.
func TestNewerSessionFencesOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1"), service(), task("t1", "n1", typesv1.TaskState_TASK_STATE_RUNNING))
		old := r.open("n1", "boot")
		old.assignment()
		r.open("n1", "boot").assignment()
		select {
		case <-old.failed:
		case <-time.After(10 * time.Second):
			t.Fatal("the older session is still open")
		}
		if got := r.store.Snapshot().Node("n1").GetStatus().GetSession().GetNumber(); got != 2 {
			t.Fatalf("session number %d, want 2", got)
		}
	})
}

// Another boot of a machine that is still heard is a cloned machine, and both are told so.
func TestDuplicateNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1"))
		m := r.open("n1", "first")
		m.assignment()
		clone := r.open("n1", "second")
		for i := range 40 {
			m.beat(uint64(i + 1))
			select {
			case err := <-clone.failed:
				if !errs.Is(err, errs.Precondition) {
					t.Fatalf("the clone was refused by %v, want a failed precondition", err)
				}
				if err := <-m.failed; !errs.Is(err, errs.Precondition) {
					t.Fatalf("the first was ended by %v, want a failed precondition", err)
				}
				return
			case <-time.After(500 * time.Millisecond):
			}
		}
		t.Fatal("the clone was not refused")
	})
}

// A machine that waits long for its welcome hears that it is not forgotten, so that it does not go to come again; unless the
// store confirms nothing, when it should look for a dispatcher that fares better.
func TestMachineThatWaitsIsReassured(t *testing.T) {
	for _, confirms := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, node("n1"))
			r.open("n1", "first").assignment() // and is silent from now on, which takes 4 s to be believed
			m := r.open("n1", "second")
			r.store.SetQuorum(confirms)
			time.Sleep(3500 * time.Millisecond)
			signs := 0
			for len(m.heard) > 0 {
				if (<-m.heard).GetHeartbeatAck() != nil {
					signs++
				}
			}
			if confirms && (signs < 2 || signs > 3) || !confirms && signs > 0 {
				t.Errorf("the store confirms: %t; %d signs of life in 3.5 s", confirms, signs)
			}
			if confirms {
				m.until("welcome", func(resp *dispatcherv1.SessionResponse) bool { return resp.GetWelcome() != nil })
			}
		})
	}
}

// A status is acknowledged after it is in the store, and not before.
func TestStatusAckAfterCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1"), service(), task("t1", "n1", typesv1.TaskState_TASK_STATE_RUNNING))
		m := r.open("n1", "boot")
		m.assignment()
		r.store.OnCommit(func(*storev1.Transaction) error { return errs.New(errs.Unavailable, "no leader") })
		m.say(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Status{Status: &dispatcherv1.StatusBatch{
			Seq: 7, Tasks: []*dispatcherv1.TaskStatus{{
				TaskId: "t1", Observed: &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_RUNNING, Seq: 1, Ready: true},
			}},
		}}})
		time.Sleep(900 * time.Millisecond)
		for len(m.heard) > 0 {
			if (<-m.heard).GetStatusAck() != nil {
				t.Fatal("acknowledged before the commit")
			}
		}
		r.store.OnCommit(nil)
		m.until("acknowledgement", func(resp *dispatcherv1.SessionResponse) bool { return resp.GetStatusAck().GetSeq() == 7 })
		if !r.store.Snapshot().Task("t1").GetObserved().GetReady() {
			t.Fatal("acknowledged, and not in the store")
		}
	})
}

// A task that is to stop waits for the mesh: the barrier is told when every meshproxy has the revision in force.
func TestBarrierIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1"), service(), task("t1", "n1", typesv1.TaskState_TASK_STATE_RUNNING))
		place := r.mesh.Join("n9")
		place.Report(state.Version{EpochNumber: 1, EpochNonce: 1, Revision: 1})
		m := r.open("n1", "boot")
		m.assignment()
		stop := r.store.Put(task("t1", "n1", typesv1.TaskState_TASK_STATE_SHUTDOWN))
		a := m.assignment()
		if got := a.GetTasks()[0].GetStopRevision(); got != stop.Revision {
			t.Fatalf("stop revision %d, want %d", got, stop.Revision)
		}
		time.Sleep(time.Second)
		if len(m.heard) > 0 {
			if b := (<-m.heard).GetBarrier(); b.GetApplied().GetRevision() >= stop.Revision {
				t.Fatalf("barrier %v passed %d while a meshproxy is at 1", b, stop.Revision)
			}
		}
		m.beat(1) // or it becomes SUSPECT, and hears of the barrier with that
		place.Report(stop)
		reported := time.Now()
		m.until("barrier", func(resp *dispatcherv1.SessionResponse) bool {
			return resp.GetBarrier().GetApplied().GetRevision() >= stop.Revision
		})
		if took := time.Since(reported); took > time.Second {
			t.Errorf("the barrier was told after %s", took)
		}
	})
}

// Each description that is written is a revision for every replica, so a machine that has a new one every moment waits.
func TestDescriptionsArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1"))
		m := r.open("n1", "boot")
		m.assignment()
		before := r.store.Commits()
		for i := range int64(100) {
			m.say(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Description{
				Description: &typesv1.NodeDescription{MemoryBytes: i + 1},
			}})
			time.Sleep(100 * time.Millisecond)
		}
		if n := r.store.Commits() - before; n < 1 || n > 3 {
			t.Errorf("%d commits for 100 descriptions in 10 s, wanted one every 5 s at most", n)
		}
		time.Sleep(6 * time.Second)
		if got := r.store.Snapshot().Node("n1").GetStatus().GetDescription().GetMemoryBytes(); got != 100 {
			t.Errorf("the description kept is number %d, wanted the last", got)
		}
	})
}

// What a machine says of its addresses goes to every other one's kernel, so it is looked at whenever it is said.
func TestAddressesOfOneLinkAreToldToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1"))
		says := func(address string) *typesv1.NodeDescription {
			return &typesv1.NodeDescription{OwnAddresses: []string{"fe80::1%eth0", address}}
		}
		m := r.openSaying("n1", &dispatcherv1.Hello{
			BootId: "boot", Addresses: []string{"10.0.0.1"}, Vteps: []string{"fe80::1%eth0", "10.0.0.1"}, Description: says("10.0.0.2"),
		})
		m.assignment()
		keeps := func(want string) {
			t.Helper()
			st := r.store.Snapshot().Node("n1").GetStatus()
			if own := st.GetDescription().GetOwnAddresses(); !slices.Equal(own, []string{want}) || !slices.Equal(st.GetVteps(), []string{"10.0.0.1"}) {
				t.Errorf("kept are its addresses %s and its tunnel ends %s", own, st.GetVteps())
			}
		}
		keeps("10.0.0.2")
		m.say(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Description{Description: says("10.0.0.3")}})
		time.Sleep(6 * time.Second)
		keeps("10.0.0.3")
	})
}
