package endpoint_test

import (
	"context"
	"net"
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
	"github.com/shoalproject/shoal/services/dispatcher/internal/endpoint"
)

const linger = 2 * time.Second

type rig struct {
	t     *testing.T
	store *replicatest.Store
	conn  *grpc.ClientConn
	mesh  *barrier.Barrier
	peers []string // other live dispatchers
}

func newRig(t *testing.T, quorum bool, peers []string, objects ...*typesv1.Object) *rig {
	t.Helper()
	env := testx.Env(t)
	store := replicatest.New(env, append(objects, state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c1"}}), member("d1", 0))...)
	store.SetQuorum(quorum)
	conn := store.Dial(t)
	view := replica.New(env, storev1.NewWatchServiceClient(conn))
	r := &rig{t: t, store: store, peers: peers}
	r.mesh = barrier.New("d1", "dispatcher/d1", env.Log, view, commit.New(storev1.NewCommitServiceClient(conn), env.Rand),
		func() []string { return peers }, linger)
	endpoints := endpoint.New(env, view, r.mesh, new(bulletin.Board), func() error { return nil })
	server := grpc.NewServer(grpc.ChainStreamInterceptor(errs.StreamServer(), asMeshproxy))
	dispatcherv1.RegisterEndpointServiceServer(server, endpoints)
	ctx, cancel := context.WithCancel(t.Context())
	l, err := env.Net.Listen(ctx, "tcp", "d1:2383")
	if err != nil {
		t.Fatal(err)
	}
	g := run.NewGroup(env.Log)
	g.Go("view", view.Run)
	g.Go("barrier", r.mesh.Run)
	g.Go("endpoints", endpoints.Run)
	done := make(chan error, 2)
	go func() { done <- g.Wait(ctx) }()
	go func() { done <- server.Serve(l) }()
	r.conn, err = grpc.NewClient("passthrough:///d1:2383", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return env.Net.Dial(ctx, "tcp", a) }),
		grpc.WithChainStreamInterceptor(errs.StreamClient()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = r.conn.Close()
		server.Stop()
		<-done
		<-done
	})
	time.Sleep(linger + time.Second)
	return r
}

// asMeshproxy makes the caller from the metadata: certificates are internal/rpc's to test.
func asMeshproxy(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	md, _ := metadata.FromIncomingContext(ss.Context())
	id := identity.ID{Cluster: "c1", Role: authzv1.Role_ROLE_MESHPROXY, Name: md.Get("node")[0]}
	return next(srv, withContext{ss, rpc.WithCaller(ss.Context(), rpc.Caller{Principal: id})})
}

type withContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (w withContext) Context() context.Context { return w.ctx }

// proxy is a meshproxy's side.
type proxy struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[dispatcherv1.EndpointsRequest, dispatcherv1.EndpointsResponse]
	end    context.CancelFunc
}

func (r *rig) open(node string) *proxy {
	r.t.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(r.t.Context(), "node", node))
	r.t.Cleanup(cancel)
	s, err := dispatcherv1.NewEndpointServiceClient(r.conn).Endpoints(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	p := &proxy{t: r.t, stream: s, end: cancel}
	p.applied(nil)
	return p
}

func (p *proxy) applied(v *typesv1.Version) {
	p.t.Helper()
	if err := p.stream.Send(&dispatcherv1.EndpointsRequest{Applied: v}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *proxy) next() *dispatcherv1.EndpointsResponse {
	p.t.Helper()
	r, err := p.stream.Recv()
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// within is next, but not for longer than that.
func (p *proxy) within(d time.Duration) *dispatcherv1.EndpointsResponse {
	p.t.Helper()
	defer time.AfterFunc(d, p.end).Stop()
	return p.next()
}

func member(id string, applied uint64) *typesv1.Object {
	return state.Wrap(&typesv1.Member{
		Meta: &typesv1.Meta{Id: "dispatcher/" + id}, Role: authzv1.Role_ROLE_DISPATCHER, MachineId: id,
		Addresses: []string{id + ":2383"}, AppliedRevision: applied,
	})
}

func node(id, bound string) *typesv1.Object {
	return state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: id}, Status: &typesv1.NodeStatus{
		State: typesv1.NodeState_NODE_STATE_READY, Session: &typesv1.NodeSession{DispatcherId: bound, Number: 1},
	}})
}

func web() *typesv1.Object {
	return state.Wrap(&typesv1.Service{
		Meta: &typesv1.Meta{Id: "s1"}, Spec: &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: "web"}},
		Endpoint: &typesv1.Endpoint{Ports: []*typesv1.PortConfig{{PublishedPort: 8080}}},
	})
}

func task(desired typesv1.TaskState) *typesv1.Object {
	return state.Wrap(&typesv1.Task{
		Meta: &typesv1.Meta{Id: "t1"}, ServiceId: "s1",
		Decided:  &typesv1.TaskDecided{NodeId: "n1", Desired: desired},
		Observed: &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_RUNNING, Ready: true},
	})
}

const (
	running = typesv1.TaskState_TASK_STATE_RUNNING
	stop    = typesv1.TaskState_TASK_STATE_SHUTDOWN
)

// Tables come whole first, with trust and directory, then as differences; the barrier rises when all have answered, and
// later revisions that change nothing for anybody are in force as they come.
func TestWholeDifferenceBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true, nil, node("n1", "d1"), web(), task(running))
		a, b := r.open("n1"), r.open("n2")
		full := a.next()
		if !full.GetFull() || len(full.GetServices()[0].GetEndpoints()) != 1 || full.GetTrust() == nil || full.GetDirectory() == nil {
			t.Fatalf("first: %v, want the whole with an endpoint, trust and directory", full)
		}
		a.applied(full.GetVersion())
		b.applied(b.next().GetVersion())
		at := r.store.Put(task(stop))
		diff := a.next()
		if diff.GetFull() || len(diff.GetServices()) != 1 || !diff.GetServices()[0].GetEndpoints()[0].GetDraining() {
			t.Fatalf("second: %v, want the service's endpoint to take no more", diff)
		}
		a.applied(diff.GetVersion())
		late := b.next().GetVersion()
		time.Sleep(time.Second)
		if r.mesh.Applied().Reaches(at) {
			t.Fatalf("barrier %v has passed %v while one has not answered", r.mesh.Applied(), at)
		}
		b.applied(late)
		time.Sleep(200 * time.Millisecond)
		if !r.mesh.Applied().Reaches(at) {
			t.Fatalf("barrier %v has not passed %v", r.mesh.Applied(), at)
		}
		quiet := r.store.Put(state.Wrap(&typesv1.Lease{Meta: &typesv1.Meta{Id: "scheduler"}}))
		time.Sleep(200 * time.Millisecond)
		if !r.mesh.Applied().Reaches(quiet) {
			t.Fatalf("barrier %v has not passed %v, which changed nothing", r.mesh.Applied(), quiet)
		}
	})
}

// A meshproxy that has left goes on counting for a while: its old tables are in force.
func TestWhoLeftCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true, nil, node("n1", "d1"), web(), task(running))
		a := r.open("n1")
		a.applied(a.next().GetVersion())
		time.Sleep(100 * time.Millisecond)
		a.end()
		time.Sleep(100 * time.Millisecond)
		at := r.store.Put(task(stop))
		time.Sleep(time.Second)
		if r.mesh.Applied().Reaches(at) {
			t.Fatal("the barrier has passed while the old tables are in force")
		}
		time.Sleep(linger)
		if !r.mesh.Applied().Reaches(at) {
			t.Fatal("the barrier waits for who is gone")
		}
	})
}

// Tables that no quorum has confirmed are not served: an empty one would take every service off its port.
func TestNothingBeforeTheQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, false, nil, web())
		got, err := r.open("n1").stream.Recv()
		if !errs.Is(err, errs.Unavailable) {
			t.Fatalf("%v, %v; want unavailable", got, err)
		}
		r.store.SetQuorum(true)
		if got := r.open("n1").next(); len(got.GetServices()) != 1 {
			t.Fatalf("%v, want the service", got)
		}
	})
}

// Without the quorum nobody takes a machine that is off out of the tables: meshproxies are told so, once, and once that it
// is back.
func TestStaleWithoutTheQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true, nil, node("n1", "d1"), web(), task(running))
		p := r.open("n1")
		if full := p.next(); full.GetStale() {
			t.Fatal("tables that the quorum confirms are called stale")
		}
		time.Sleep(time.Minute)
		r.store.SetQuorum(false)
		if m := p.within(2 * time.Second); !m.GetStale() || m.GetFull() {
			t.Fatalf("%v, want to be told within 2 s that the tables are stale", m)
		}
		time.Sleep(time.Minute)
		r.store.SetQuorum(true)
		if m := p.within(2 * time.Second); m.GetStale() || m.GetFull() {
			t.Fatalf("%v, want to be told that the tables are the newest again", m)
		}
	})
}

// However fast the store changes, the quorum is heard beside it: tables are not called stale for it.
func TestFreshWhileMuchChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true, nil, node("n1", "d1"), web(), task(running))
		p := r.open("n1")
		p.next()
		heard := make(chan bool, 1)
		go func() {
			m, err := p.stream.Recv()
			heard <- err == nil && m.GetStale()
		}()
		for range 1000 {
			r.store.Put(state.Wrap(&typesv1.Lease{Meta: &typesv1.Meta{Id: "scheduler"}}))
			time.Sleep(10 * time.Millisecond)
		}
		p.end()
		if <-heard {
			t.Error("tables that the quorum confirms are called stale while the store changes")
		}
	})
}

// What a meshproxy has in force is published for the other dispatchers, only while a task waits, and once.
func TestPublishedOnlyWhileATaskWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, true, []string{"d2"}, member("d2", 1000), node("n1", "d1"), web(), task(running))
		a := r.open("n1")
		a.applied(a.next().GetVersion())
		for range 10 {
			r.store.Put(state.Wrap(&typesv1.Lease{Meta: &typesv1.Meta{Id: "scheduler"}}))
			time.Sleep(100 * time.Millisecond)
		}
		if got := r.store.Commits(); got != 0 {
			t.Fatalf("%d commits while no task waits", got)
		}
		at := r.store.Put(task(stop))
		time.Sleep(time.Second)
		if got := r.store.Commits(); got != 0 {
			t.Fatalf("%d commits before the meshproxy has answered", got)
		}
		a.applied(a.next().GetVersion())
		time.Sleep(time.Second)
		if got := r.store.Snapshot().Member("dispatcher/d1").GetAppliedRevision(); got < at.Revision || r.store.Commits() != 1 {
			t.Fatalf("published %d in %d commits, want at least %d in one", got, r.store.Commits(), at.Revision)
		}
	})
}

// Another dispatcher counts by what it has published: while it lives, and after that while a machine is bound to it.
func TestOthersCount(t *testing.T) {
	for name, c := range map[string]struct {
		live   []string
		bound  string
		passes bool
	}{
		"alive":                   {[]string{"d2"}, "d1", false},
		"dead, machine bound":     {nil, "d2", false},
		"dead, no machine on it":  {nil, "d1", true},
		"alive, machines are its": {[]string{"d2"}, "d2", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, true, c.live, member("d2", 1), node("n1", c.bound), web(), task(running))
				at := r.store.Put(task(stop))
				time.Sleep(time.Second)
				if got := r.mesh.Applied().Reaches(at); got != c.passes {
					t.Fatalf("passed: %t, want %t", got, c.passes)
				}
				r.store.Put(member("d2", 1000))
				time.Sleep(time.Second)
				if !r.mesh.Applied().Reaches(at) {
					t.Fatal("not passed after the other has published")
				}
			})
		})
	}
}
