package meshproxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy"
	"github.com/shoalproject/shoal/services/meshproxy/meshproxytest"
)

// host is a machine's own part of a network that all share: what it listens on everywhere, it listens on by its address.
type host struct {
	run.Network
	address string
}

func (h host) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if strings.HasPrefix(address, ":") {
		address = h.address + address
	}
	return h.Network.Listen(ctx, network, address)
}

func (h host) Connect(to netip.AddrPort, source netip.Addr) (fd int, err error) {
	return run.Connect(h.Network, to, source)
}

// world is two machines and a dispatcher.
type world struct {
	t          testing.TB
	net        run.Network
	authority  *identitytest.Authority
	dispatcher *dispatcher
	group      sync.WaitGroup
	ctx        context.Context
}

type dispatcher struct {
	dispatcherv1.UnimplementedEndpointServiceServer
	dispatcherv1.UnimplementedSessionServiceServer

	mu      sync.Mutex // guards all below
	last    *dispatcherv1.EndpointsResponse
	changed chan struct{}
	applied map[string]uint64
	hello   *dispatcherv1.Hello
	beats   uint64
}

func (d *dispatcher) publish(r *dispatcherv1.EndpointsResponse) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = r
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *dispatcher) Endpoints(s grpc.BidiStreamingServer[dispatcherv1.EndpointsRequest, dispatcherv1.EndpointsResponse]) error {
	peer, _ := rpc.PeerOf(s.Context())
	go func() {
		for {
			r, err := s.Recv()
			if err != nil {
				return
			}
			d.mu.Lock()
			d.applied[peer.ID.Name] = r.GetApplied().GetRevision()
			d.mu.Unlock()
		}
	}()
	for {
		d.mu.Lock()
		r, changed := d.last, d.changed
		d.mu.Unlock()
		if err := s.Send(r); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func (d *dispatcher) Session(s grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]) error {
	r, err := s.Recv()
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.hello = r.GetHello()
	d.mu.Unlock()
	welcome := &dispatcherv1.SessionResponse_Welcome{Welcome: &dispatcherv1.Welcome{Session: 1}}
	if err := s.Send(&dispatcherv1.SessionResponse{Message: welcome}); err != nil {
		return err
	}
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		d.mu.Lock()
		d.beats = r.GetHeartbeat().GetSeq()
		d.mu.Unlock()
		ack := &dispatcherv1.SessionResponse_HeartbeatAck{HeartbeatAck: &dispatcherv1.HeartbeatAck{Seq: r.GetHeartbeat().GetSeq()}}
		if err := s.Send(&dispatcherv1.SessionResponse{Message: ack}); err != nil {
			return err
		}
	}
}

func newWorld(t testing.TB, network run.Network) *world {
	ctx, cancel := context.WithCancel(t.Context())
	env := testx.Env(t)
	w := &world{
		t: t, net: network, ctx: ctx, authority: identitytest.New(t, env, "test"),
		dispatcher: &dispatcher{changed: make(chan struct{}), applied: map[string]uint64{}, last: tables(1, nil)},
	}
	t.Cleanup(func() { cancel(); w.group.Wait() })
	env.Net = network
	server := rpc.NewServer(env, w.authority.Keeper(t, env, w.authority.ID(authzv1.Role_ROLE_DISPATCHER, "m1")))
	dispatcherv1.RegisterEndpointServiceServer(server.GRPC(), w.dispatcher)
	dispatcherv1.RegisterSessionServiceServer(server.GRPC(), w.dispatcher)
	w.run(func() error { return server.Serve([]string{"127.0.1.100:12383"})(ctx) })
	return w
}

func (w *world) run(f func() error) {
	w.group.Go(func() {
		if err := f(); err != nil {
			w.t.Error(err)
		}
	})
}

// start runs a machine's meshproxy.
func (w *world) start(name, address string, change func(*meshproxy.Config)) {
	w.t.Helper()
	env := testx.Env(w.t)
	env.Net = host{w.net, address}
	id := w.authority.ID(authzv1.Role_ROLE_MESHPROXY, name)
	w.authority.Write(w.t, env, "/var/lib/shoal/meshproxy/identity", identitytest.Leaf{URIs: []string{id.URI()}})
	if err := directory.Write(env.Files, "/var/lib/shoal/meshproxy/directory.json", &cav1.Directory{Entries: []*cav1.DirectoryEntry{
		{Role: authzv1.Role_ROLE_DISPATCHER, MachineId: "m1", Addresses: []string{"127.0.1.100:12383"}},
	}}); err != nil {
		w.t.Fatal(err)
	}
	cfg := meshproxy.DefaultConfig()
	cfg.Advertise = []string{address}
	cfg.MeshSocket = w.t.TempDir() + "/mesh.sock"
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		w.t.Fatal(err)
	}
	w.run(func() error {
		return meshproxy.Run(w.ctx, cfg, meshproxy.Env{Env: env, Tables: meshproxytest.NewTables()})
	})
}

// task says its name, as the container with this address.
func (w *world) task(name, address string) {
	w.t.Helper()
	l, err := w.net.Listen(w.ctx, "tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.run(func() error {
		<-w.ctx.Done()
		return l.Close()
	})
	w.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, name)
			c.Close()
		}
	})
}

func (w *world) ask(address string) (string, error) {
	c, err := w.net.Dial(w.ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	data, err := io.ReadAll(c)
	return string(data), err
}

// tables have task t1 on a and t2 on b behind port 30000.
func tables(revision uint64, denied []string) *dispatcherv1.EndpointsResponse {
	r := &dispatcherv1.EndpointsResponse{
		Version: &typesv1.Version{Revision: revision}, Full: true,
		Machines: []*dispatcherv1.MeshMachine{
			{NodeId: "a", Addresses: []string{"127.0.1.1"}, Vteps: []string{"127.0.1.1"}, Blocks: []string{"10.128.1.0/24"}, MeshPort: 2385},
			{NodeId: "b", Addresses: []string{"127.0.1.2"}, Vteps: []string{"127.0.1.2"}, Blocks: []string{"10.128.2.0/24"}, MeshPort: 2385},
		},
		Services: []*dispatcherv1.MeshService{{
			ServiceId: "s", Name: "web", Ports: []*typesv1.PortConfig{{TargetPort: 8000, PublishedPort: 30000}},
			Endpoints: []*dispatcherv1.MeshEndpoint{
				{TaskId: "t1", NodeId: "a", Addresses: []string{"127.0.2.1"}, Slot: 1},
				{TaskId: "t2", NodeId: "b", Addresses: []string{"127.0.2.2"}, Slot: 2},
			},
		}},
	}
	if denied != nil {
		r.Trust = &dispatcherv1.Trust{Denied: denied}
	}
	return r
}

func TestTwoMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testx.NewNetwork())
		var socket string
		w.start("a", "127.0.1.1", func(c *meshproxy.Config) { socket = c.MeshSocket })
		w.start("b", "127.0.1.2", func(c *meshproxy.Config) { c.Ingress = true })
		w.task("t1", "127.0.2.1:8000")
		w.task("t2", "127.0.2.2:8000")
		time.Sleep(3 * time.Second)

		for _, machine := range []string{"127.0.1.1", "127.0.1.2"} {
			got := map[string]int{}
			for range 10 {
				name, err := w.ask(machine + ":30000")
				if err != nil {
					t.Fatal(err)
				}
				got[name]++
			}
			if got["t1"] != 5 || got["t2"] != 5 {
				t.Errorf("10 requests to %s were answered by %v, want 5 each", machine, got)
			}
		}
		w.dispatcher.mu.Lock()
		if fmt.Sprint(w.dispatcher.applied) != "map[a:1 b:1]" {
			t.Errorf("applied is %v, want 1 by both", w.dispatcher.applied)
		}
		if w.dispatcher.hello.GetKind() != dispatcherv1.SessionKind_SESSION_KIND_INGRESS || w.dispatcher.beats < 3 {
			t.Errorf("the ingress machine said %v and %d heartbeats", w.dispatcher.hello, w.dispatcher.beats)
		}
		w.dispatcher.mu.Unlock()
		w.withdraw(socket, "t1")
		for range 5 {
			if name, err := w.ask("127.0.1.1:30000"); name != "t2" {
				t.Errorf("after the withdrawal: %q, %v", name, err)
			}
		}
	})
}

// TestRemovedMachineIsReachedNoMore by new links or by warm ones. On real sockets: those in memory cannot be half-closed, so
// no link stays warm.
func TestRemovedMachineIsReachedNoMore(t *testing.T) {
	w := newWorld(t, run.Env{}.OrMachine("test").Net)
	w.start("a", "127.0.1.1", nil)
	w.start("b", "127.0.1.2", nil)
	w.task("t1", "127.0.2.1:8000")
	w.task("t2", "127.0.2.2:8000")
	w.eventually("both machines have the tables", func() bool {
		w.dispatcher.mu.Lock()
		defer w.dispatcher.mu.Unlock()
		return fmt.Sprint(w.dispatcher.applied) == "map[a:1 b:1]"
	})
	got := map[string]int{}
	for range 10 {
		name, _ := w.ask("127.0.1.1:30000")
		got[name]++
	}
	if got["t1"] != 5 || got["t2"] != 5 {
		t.Fatalf("before: answered by %v", got)
	}
	denial := tables(2, []string{"meshproxy/b"})
	denial.Trust.Bundle = w.authority.Bundle()
	w.dispatcher.publish(denial)
	w.eventually("a has the deny list", func() bool {
		w.dispatcher.mu.Lock()
		defer w.dispatcher.mu.Unlock()
		return w.dispatcher.applied["a"] == 2
	})
	for range 5 {
		if name, _ := w.ask("127.0.1.1:30000"); name != "t1" {
			t.Errorf("after the denial of b: %q", name)
		}
	}
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			w.t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func (w *world) withdraw(socket, task string) {
	w.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return w.net.Dial(ctx, "unix", a) }))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	client := meshv1.NewLocalServiceClient(conn)
	if _, err := client.Withdraw(w.ctx, &meshv1.WithdrawRequest{}); err == nil {
		w.t.Error("a withdrawal of nothing was taken")
	}
	if _, err := client.Withdraw(w.ctx, &meshv1.WithdrawRequest{TaskId: task}); err != nil {
		w.t.Fatal(err)
	}
}

func TestConfigTellsAllFaults(t *testing.T) {
	err := meshproxy.Config{MeshSocket: "here", BootID: "there"}.Validate()
	for _, field := range []string{"advertise", "mesh_socket", "boot_id"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}
