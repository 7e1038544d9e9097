package session_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/session"
	"github.com/shoalproject/shoal/services/meshproxy/internal/silence"
)

// dispatcher streams what it is given, to one meshproxy at a time.
type dispatcher struct {
	dispatcherv1.UnimplementedEndpointServiceServer
	healthpb.UnimplementedHealthServer
	first *dispatcherv1.EndpointsResponse
	send  chan *dispatcherv1.EndpointsResponse

	mu      sync.Mutex // guards all below
	streams int
	paused  bool
	applied []uint64
}

func (d *dispatcher) Endpoints(s grpc.BidiStreamingServer[dispatcherv1.EndpointsRequest, dispatcherv1.EndpointsResponse]) error {
	if r, err := s.Recv(); err != nil || r.GetApplied() != nil {
		return err // the first must not have a revision
	}
	d.mu.Lock()
	d.streams++
	d.mu.Unlock()
	if err := s.Send(d.first); err != nil {
		return err
	}
	go func() {
		for {
			r, err := s.Recv()
			if err != nil {
				return
			}
			d.mu.Lock()
			d.applied = append(d.applied, r.GetApplied().GetRevision())
			d.mu.Unlock()
		}
	}()
	for {
		select {
		case r := <-d.send:
			if err := s.Send(r); err != nil {
				return err
			}
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func (d *dispatcher) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	d.mu.Lock()
	paused := d.paused
	d.mu.Unlock()
	if paused {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &healthpb.HealthCheckResponse{}, nil
}

func (d *dispatcher) seen() (streams int, applied []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.streams, append([]uint64(nil), d.applied...)
}

// tables take what comes, and have in force what the test says.
type tables struct {
	mu      sync.Mutex // guards all below
	model   *mesh.Model
	applied *typesv1.Version
	changed chan struct{}
}

func (t *tables) Take(r *dispatcherv1.EndpointsResponse) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	next, err := t.model.Apply(r)
	if err == nil {
		t.model = next
	}
	return err
}

func (t *tables) Applied() (*typesv1.Version, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.applied, t.changed
}

func (t *tables) inForce() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.applied = t.model.Version()
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *tables) revision() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.model.Version().GetRevision()
}

type directory struct{ changed chan struct{} }

func (d directory) Set(*cav1.Directory) error { return nil }
func (d directory) Changed() <-chan struct{}  { return d.changed }

type health struct{}

func (health) Set(string, bool, string) {}

func version(r uint64) *typesv1.Version { return &typesv1.Version{Revision: r} }

// cluster is two dispatchers and a client of them; servers are by name.
type cluster struct {
	one, two *dispatcher
	servers  map[string]*grpc.Server
	tables   *tables
	trusted  []string
	news     []silence.News // without repetitions
	stop     func()
}

func (c *cluster) hear(n silence.News) {
	if len(c.news) == 0 || c.news[len(c.news)-1] != n {
		c.news = append(c.news, n)
	}
}

// What the tables are worth is handed on: the line's end, and what the dispatcher says of the quorum.
func TestNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.stop()
		time.Sleep(time.Second)
		c.one.send <- &dispatcherv1.EndpointsResponse{Version: version(5), Stale: true}
		c.one.send <- &dispatcherv1.EndpointsResponse{Version: version(6)}
		time.Sleep(time.Second)
		c.servers["one"].Stop()
		time.Sleep(time.Second)
		synctest.Wait()
		want := []silence.News{silence.Fresh, silence.Stale, silence.Fresh, silence.Away, silence.Fresh}
		if !slices.Equal(c.news, want) {
			t.Errorf("heard %v, want %v", c.news, want)
		}
	})
}

func newCluster(t *testing.T) *cluster {
	env := testx.Env(t)
	c := &cluster{servers: map[string]*grpc.Server{}, tables: &tables{changed: make(chan struct{})}}
	var serving sync.WaitGroup
	make1 := func(name string, revision uint64) *dispatcher {
		d := &dispatcher{
			first: &dispatcherv1.EndpointsResponse{Version: version(revision), Full: true}, send: make(chan *dispatcherv1.EndpointsResponse),
		}
		l, err := env.Net.Listen(t.Context(), "tcp", name)
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		dispatcherv1.RegisterEndpointServiceServer(s, d)
		healthpb.RegisterHealthServer(s, d)
		serving.Go(func() { s.Serve(l) })
		c.servers[name] = s
		return d
	}
	c.one, c.two = make1("one", 5), make1("two", 6)
	client := &session.Client{
		Env: env, Tables: c.tables, Directory: directory{make(chan struct{})}, Health: health{},
		Dispatchers: func() []*cav1.DirectoryEntry {
			// Two weighs nothing beside one: the first choice is one.
			return []*cav1.DirectoryEntry{
				{MachineId: "one", Addresses: []string{"nowhere", "one"}, Weight: 1 << 30}, {MachineId: "two", Addresses: []string{"two"}},
			}
		},
		Dial: func(address string) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return env.Net.Dial(ctx, "tcp", a) }))
		},
		News:  c.hear,
		Trust: func(bundle []byte, _ []string) { c.trusted = append(c.trusted, string(bundle)) },
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	c.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, s := range c.servers {
			s.Stop()
		}
		serving.Wait()
	}
	return c
}

func TestTablesComeAndAreAnsweredWhenInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.stop()
		time.Sleep(time.Second)
		if c.tables.revision() != 5 {
			t.Fatalf("revision %d came, want 5", c.tables.revision())
		}
		if _, applied := c.one.seen(); len(applied) > 0 {
			t.Errorf("answered %d before it was in force", applied)
		}
		c.tables.inForce()
		c.one.send <- &dispatcherv1.EndpointsResponse{Version: version(9), Trust: &dispatcherv1.Trust{Bundle: []byte("roots")}}
		synctest.Wait()
		if _, applied := c.one.seen(); len(applied) != 1 || applied[0] != 5 {
			t.Errorf("answered %d, want 5 alone", applied)
		}
		c.tables.inForce()
		synctest.Wait()
		if _, applied := c.one.seen(); len(applied) != 2 || applied[1] != 9 {
			t.Errorf("answered %d, want 5 and 9", applied)
		}
		if len(c.trusted) != 1 || c.trusted[0] != "roots" {
			t.Errorf("trust is %q", c.trusted)
		}
	})
}

func TestGoesElsewhere(t *testing.T) {
	for name, fail := range map[string]func(*cluster){
		"when the dispatcher ends": func(c *cluster) { c.servers["one"].Stop() },
		"when it hangs": func(c *cluster) {
			c.one.mu.Lock()
			defer c.one.mu.Unlock()
			c.one.paused = true
		},
		"when it goes back in time": func(c *cluster) {
			c.one.send <- &dispatcherv1.EndpointsResponse{Version: version(2), Full: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				defer c.stop()
				time.Sleep(2 * time.Second)
				fail(c)
				time.Sleep(4 * time.Second)
				if n, _ := c.two.seen(); n == 0 || c.tables.revision() != 6 {
					t.Errorf("%d streams with the other after 4 s, revision %d", n, c.tables.revision())
				}
			})
		})
	}
}

func TestWithoutDispatcherTheTablesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		defer c.stop()
		time.Sleep(time.Second)
		c.servers["one"].Stop()
		c.servers["two"].Stop()
		time.Sleep(time.Hour)
		if c.tables.revision() == 0 {
			t.Error("the tables have gone")
		}
	})
}

func TestPickByWeight(t *testing.T) {
	r := run.NewRand(1)
	members := []*cav1.DirectoryEntry{{MachineId: "a", Weight: 3}, {MachineId: "b", Weight: 1}, {MachineId: "c"}}
	got := map[string]int{}
	for range 5000 {
		m, ok := session.Pick(r, members, "", "")
		if !ok {
			t.Fatal("none")
		}
		got[m.GetMachineId()]++
	}
	if got["a"] < 2800 || got["a"] > 3200 || got["b"] < 850 || got["c"] < 850 {
		t.Errorf("picked %v of weights 3, 1, 1", got)
	}
	for range 100 {
		if m, _ := session.Pick(r, members, "a", ""); m.GetMachineId() == "a" {
			t.Fatal("the last one again, though there are others")
		}
	}
	if m, ok := session.Pick(r, members[:1], "a", ""); !ok || m.GetMachineId() != "a" {
		t.Error("the only one was not picked again")
	}
	if _, ok := session.Pick(r, nil, "", ""); ok {
		t.Error("picked one of none")
	}
}
