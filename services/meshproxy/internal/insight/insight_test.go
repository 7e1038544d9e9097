package insight_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/examine"
	"github.com/shoalproject/shoal/services/meshproxy/internal/forward"
	"github.com/shoalproject/shoal/services/meshproxy/internal/insight"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tracked"
)

// machine is a, which serves web on port 30000 with a task of its own and one of b, and has a container that dials web's
// virtual address.
type machine struct {
	model     *mesh.Model
	published *mesh.Published
}

func newMachine(t *testing.T) machine {
	t.Helper()
	var m *mesh.Model
	m, err := m.Apply(&dispatcherv1.EndpointsResponse{
		Version: &typesv1.Version{}, Full: true, MachineNetwork: "10.128.0.0/10",
		Machines: []*dispatcherv1.MeshMachine{
			{NodeId: "a", Addresses: []string{"198.51.100.1"}, Vteps: []string{"198.51.100.1"}, Blocks: []string{"10.128.1.0/24"}, MeshPort: 2385},
			{NodeId: "b", Addresses: []string{"198.51.100.2"}, Vteps: []string{"198.51.100.2"}, Blocks: []string{"10.128.2.0/24"}, MeshPort: 2385},
		},
		Services: []*dispatcherv1.MeshService{{
			ServiceId: "s", Name: "web", Ports: []*typesv1.PortConfig{{TargetPort: 8000, PublishedPort: 30000}},
			Endpoints: []*dispatcherv1.MeshEndpoint{
				{TaskId: "t1", NodeId: "a", Addresses: []string{"10.128.1.5"}, Slot: 1}, {TaskId: "t2", NodeId: "b", Addresses: []string{"10.128.2.5"}, Slot: 2},
				{TaskId: "t3", NodeId: "b", Addresses: []string{"10.128.2.6"}, Slot: 3, Draining: true},
			},
		}},
		Networks: []*dispatcherv1.MeshNetwork{{NetworkId: "n", Name: "front", Vni: 4097, Entries: []*dispatcherv1.NetworkEntry{{TaskId: "t2", NodeId: "b", Addresses: []string{"10.0.0.7"}}}}},
		NetworkServices: []*dispatcherv1.NetworkService{{
			NetworkId: "n", ServiceId: "s", Name: "web", Vips: []string{"10.0.0.2"}, Endpoints: []*dispatcherv1.NetworkEndpoint{{TaskId: "t2", Addresses: []string{"10.0.0.7"}}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	published, err := m.Publish(mesh.Self{Node: "a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return machine{m, published}
}

func (m machine) Told() *mesh.Model      { return m.model }
func (m machine) Shown() *mesh.Published { return m.published }

func (m machine) Flows(do func(string, tracked.Flow)) error {
	do("c1.0", flow("tcp 10.0.0.9:41000 10.0.0.2:8000 10.0.0.7:8000 established"))
	return nil
}

func (m machine) Behind(netip.Addr) map[string][]netip.Addr {
	return map[string][]netip.Addr{"c1.0": {netip.MustParseAddr("10.0.0.7")}}
}

func flow(text string) tracked.Flow {
	w := strings.Fields(text)
	return tracked.Flow{Protocol: w[0], Client: netip.MustParseAddrPort(w[1]), Dialled: netip.MustParseAddrPort(w[2]), LedTo: netip.MustParseAddrPort(w[3]), State: w[4]}
}

// server has one element of the kernel's maps taken away by somebody.
func server(t *testing.T) *insight.Server {
	m := newMachine(t)
	elements := map[kernel.Slot]string{
		{Set: "ports4", Key: "tcp 30000"}: "0x00310002", {Set: "turns4", Key: "0x00310002"}: "turn4-2-49", {Set: "backends4", Key: "tcp 30000 0"}: "10.128.1.5 8000",
	}
	return &insight.Server{
		Env: testx.Env(t), Node: "a", Mesh: m, Virtual: m,
		Members:  func(authzv1.Role) []*cav1.DirectoryEntry { return nil },
		Elements: func() (map[kernel.Slot]string, error) { return elements, nil },
		Flows: func(do func(tracked.Flow)) error {
			do(flow("tcp 203.0.113.9:5000 198.51.100.1:30000 10.128.2.5:8000 established"))
			do(flow("tcp 203.0.113.9:5001 198.51.100.1:30000 10.128.2.5:8000 time-wait"))
			do(flow("tcp 203.0.113.9:5002 198.51.100.1:22 198.51.100.1:22 established")) // the machine's own
			do(flow("tcp 203.0.113.8:1000 10.128.1.5:8000 10.128.1.5:8000 established")) // came in by another machine, which tells it
			return nil
		},
		Opened: func() []forward.Open {
			return []forward.Open{{Listener: mesh.Listener{Network: "tcp", Port: 30000}, Client: netip.MustParseAddrPort("127.0.0.1:7000"),
				Dialled: netip.MustParseAddrPort("127.0.0.1:30000"), Backend: m.published.Ports()[0].Backends[0]}}
		},
	}
}

// answers collects what a server sends.
type answers[R any] struct {
	grpc.ServerStream
	ctx context.Context
	all []*R
}

func (a *answers[R]) Send(r *R) error          { a.all = append(a.all, r); return nil }
func (a *answers[R]) Context() context.Context { return a.ctx }

// Connections are told where they came in, once each, with the task that they were led to; the bound holds, and all are counted.
func TestConnections(t *testing.T) {
	for _, c := range []struct {
		req  *logsv1.ListConnectionsRequest
		want string
	}{
		{&logsv1.ListConnectionsRequest{}, `4
userspace 127.0.0.1:7000 127.0.0.1:30000 t1@a 
kernel 203.0.113.9:5000 198.51.100.1:30000 t2@b established
kernel 203.0.113.9:5001 198.51.100.1:30000 t2@b time-wait
kernel 10.0.0.9:41000 10.0.0.2:8000 t2@b established`},
		{&logsv1.ListConnectionsRequest{Limit: 1, Service: "web"}, "4\nuserspace 127.0.0.1:7000 127.0.0.1:30000 t1@a "},
		{&logsv1.ListConnectionsRequest{Service: "other"}, "0"},
	} {
		out := &answers[logsv1.ListConnectionsResponse]{ctx: t.Context()}
		if err := server(t).ListConnections(c.req, out); err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(out.all[0].GetTotal())
		for _, r := range out.all {
			for _, x := range r.GetConnections() {
				got += fmt.Sprintf("\n%s %s %s %s@%s %s", x.GetCarrier(), x.GetClient(), x.GetDialled(), x.GetTaskId(), x.GetNodeId(), x.GetState())
			}
		}
		if got != c.want {
			t.Errorf("%v:\n%s\nwant\n%s", c.req, got, c.want)
		}
	}
}

// A trace shows the kernel's elements as they are, marks the one that somebody took away, counts what is open to each task, and
// says why a task gets nothing.
func TestTrace(t *testing.T) {
	out := &answers[logsv1.TraceServiceResponse]{ctx: t.Context()}
	if err := server(t).TraceService(&logsv1.TraceServiceRequest{Service: "web"}, out); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, w := range out.all[0].GetWays() {
		fmt.Fprintf(&b, "%s %s %s\n", w.GetDialled(), w.GetCarrier(), w.GetContainer())
		for _, s := range w.GetSteps() {
			fmt.Fprintf(&b, "  %s %s missing=%t\n", s.GetTable(), s.GetKey(), s.GetMissing())
		}
		for _, e := range w.GetEnds() {
			fmt.Fprintf(&b, "  > %s %s %s missing=%t connections=%d %s\n", e.GetTaskId(), e.GetAddress(), e.GetStep().GetKey(), e.GetStep().GetMissing(), e.GetConnections(), e.GetLeftOut())
		}
	}
	const want = `tcp/30000 kernel 
  inet shoal ports4 tcp 30000 missing=false
  inet shoal turns4 0x00310002 missing=false
  > t1 10.128.1.5:8000 tcp 30000 0 missing=false connections=1 
  > t2 10.128.2.5:8000 tcp 30000 1 missing=true connections=2 
  > t3 10.128.2.6  missing=false connections=0 it stops, is not ready, or its machine is silent
10.0.0.2 kernel c1.0
  > t2 10.0.0.7 10.0.0.2 missing=false connections=1 
`
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
	err := server(t).TraceService(&logsv1.TraceServiceRequest{Service: "none"}, out)
	if err == nil || !strings.Contains(err.Error(), `"none"`) {
		t.Errorf("a service that is not there: %v", err)
	}
}

// The largest packet is found by halves, whatever the path carries; a tunnel that is held back is told so, not as one that is narrow.
func TestExamine(t *testing.T) {
	for carries, want := range map[int]string{1450: "", 1350: "mtu", 0: "port meshproxy, tunnel"} {
		s := server(t)
		s.Facts = func() (examine.Facts, error) { return examine.Facts{Tunnel: 1450}, nil }
		s.Echo = func(_, _ netip.Addr, size int) (bool, error) { return size <= carries, nil }
		if carries > 0 {
			l, err := s.Env.Net.Listen(t.Context(), "tcp", "198.51.100.2:2385")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
					conn.Close()
				}
			}()
		}
		out := &answers[logsv1.ExamineNetworkResponse]{ctx: t.Context()}
		if err := s.ExamineNetwork(nil, out); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range out.all {
			for _, f := range r.GetFindings() {
				if f.GetGrade() == logsv1.FindingGrade_FINDING_GRADE_FAULT {
					got = append(got, f.GetCheck())
					if f.GetCheck() == "mtu" && !strings.Contains(f.GetWhat(), "more than 134") {
						t.Errorf("a path of %d is told as %q", carries, f.GetWhat())
					}
				}
			}
		}
		if text := strings.Join(got, ", "); text != want {
			t.Errorf("a path that carries %d: found %q, want %q", carries, text, want)
		}
	}
}

// Machines that are not tried are told as such: more than one machine tries, or the time is over.
func TestExamineTellsWhatItLeavesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for others, want := range map[int]string{20: "", 300: "44 of 300"} {
			for _, slow := range []bool{false, true} {
				s := server(t)
				r := &dispatcherv1.EndpointsResponse{Version: &typesv1.Version{}, Full: true}
				for i := range others + 1 {
					r.Machines = append(r.Machines, &dispatcherv1.MeshMachine{NodeId: fmt.Sprint("m", i), Blocks: []string{fmt.Sprintf("10.%d.%d.0/24", 128+i/256, i%256)}})
				}
				var none *mesh.Model
				m, err := none.Apply(r)
				if err != nil {
					t.Fatal(err)
				}
				s.Mesh, s.Node = machine{model: m}, "m7"
				s.Facts = func() (examine.Facts, error) { return examine.Facts{Tunnel: 1450}, nil }
				s.Echo = func(_, _ netip.Addr, _ int) (bool, error) {
					if slow {
						time.Sleep(10 * time.Second)
					}
					return true, nil
				}
				want := want
				if slow && others == 300 { // two packets to each of 32 at once: the first 64 are done in time
					want = "236 of 300"
				}
				out := &answers[logsv1.ExamineNetworkResponse]{ctx: t.Context()}
				if err := s.ExamineNetwork(nil, out); err != nil {
					t.Fatal(err)
				}
				told := ""
				for _, r := range out.all {
					for _, f := range r.GetFindings() {
						if strings.Contains(f.GetWhat(), "not tried") {
							told = f.GetWhat()
						}
					}
				}
				if (told == "") != (want == "") || !strings.Contains(told, want) {
					t.Errorf("%d others, slow %v: told %q, want %q", others, slow, told, want)
				}
			}
		}
	})
}
