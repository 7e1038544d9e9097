package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
	"github.com/shoalproject/shoal/services/store/internal/relay"
)

// alone is a Node without Raft: what is proposed is applied at once.
type alone struct {
	machine *fsm.Machine
	before  func(tx *storev1.Transaction) // what happens while a proposal is on its way
	now     time.Time
}

func (a *alone) View() *raftnode.View {
	return &raftnode.View{ID: 1, Leader: 1, Serves: true, Image: a.machine.Image()}
}
func (a *alone) Watch() (*raftnode.View, <-chan struct{})           { return a.View(), make(chan struct{}) }
func (a *alone) Linear(context.Context) (fsm.Image, error)          { return a.machine.Image(), nil }
func (a *alone) Spare(context.Context, uint64, bool) error          { return nil }
func (a *alone) Remove(context.Context, uint64, bool) error         { return nil }
func (a *alone) SetVoter(context.Context, uint64, bool, bool) error { return nil }
func (a *alone) Transfer(context.Context, ...string) error          { return nil }
func (a *alone) ClusterTime() time.Time                             { return a.now }
func (a *alone) Propose(_ context.Context, tx *storev1.Transaction) (*storev1.Outcome, error) {
	if f := a.before; f != nil {
		a.before = nil
		f(tx)
	}
	return a.machine.Apply(&storev1.LogEntry{Transactions: []*storev1.Transaction{tx}})[0].Outcome, nil
}

func newAPI(t *testing.T) (*API, *alone, context.Context) {
	t.Helper()
	w, err := fsm.ReadWriters()
	if err != nil {
		t.Fatal(err)
	}
	node := &alone{machine: fsm.New(w)}
	node.machine.Begin(&typesv1.Epoch{Number: 1}, &storev1.Transaction{Puts: []*storev1.Put{
		desk.Create(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c"}, Spec: &typesv1.ClusterSpec{FirstPort: 30000, LastPort: 30009}}), "spec"),
		desk.Create(state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: "n1"}, Identity: &typesv1.NodeIdentity{Hostname: "w1"}}), "identity"),
		desk.Create(state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: "n2"}, Identity: &typesv1.NodeIdentity{Hostname: "w2"}, Status: &typesv1.NodeStatus{State: typesv1.NodeState_NODE_STATE_DOWN}}), "identity", "status"),
		desk.Create(state.Wrap(&typesv1.Member{Meta: &typesv1.Meta{Id: "agent/n2"}, MachineId: "n2"}), "machine_id"),
		desk.Create(state.Wrap(&typesv1.Credential{Meta: &typesv1.Meta{Id: "agent/n2"}, Serial: "beef"}), "serial"),
	}})
	ann := identity.ID{Cluster: "c", Role: authzv1.Role_ROLE_OPERATOR, Name: "ann"}
	a := New(Config{Node: node, Relay: &relay.Relay{Self: ann, Node: node}, Rand: run.NewRand(1), Now: time.Now})
	return a, node, rpc.WithCaller(t.Context(), rpc.Caller{Principal: ann})
}

func serviceSpec(name string, ports ...*typesv1.PortConfig) *typesv1.ServiceSpec {
	return &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: name, Labels: map[string]string{"tier": name[:1]}},
		Task:        &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "nginx"}},
		Endpoint:    &typesv1.EndpointSpec{Ports: ports},
	}
}

// TestChosenPortLost: a port that was chosen and is taken on the way is chosen again, and a repetition of the request gets
// what the last try has made, not the refusal of the first.
func TestChosenPortLost(t *testing.T) {
	a, node, ctx := newAPI(t)
	node.before = func(*storev1.Transaction) {
		thief := serviceSpec("thief")
		node.machine.Apply(&storev1.LogEntry{Transactions: []*storev1.Transaction{{
			RequestId: "x", Caller: &storev1.Caller{Role: authzv1.Role_ROLE_OPERATOR},
			Puts: []*storev1.Put{desk.Create(state.Wrap(&typesv1.Service{
				Meta: &typesv1.Meta{Id: "thief"}, Spec: thief, Endpoint: &typesv1.Endpoint{Ports: []*typesv1.PortConfig{{PublishedPort: 30000}}},
			}), "spec", "endpoint")},
		}}})
	}
	req := &controlv1.CreateServiceRequest{RequestId: "r", Spec: serviceSpec("web", &typesv1.PortConfig{TargetPort: 80})}
	for range 2 {
		resp, err := services{API: a}.CreateService(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.GetService().GetEndpoint().GetPorts()[0].GetPublishedPort(); got != 30001 {
			t.Errorf("port %d", got)
		}
	}
}

// TestPoolFull: when no port is free the request says so, and nothing is made.
func TestPoolFull(t *testing.T) {
	a, node, ctx := newAPI(t)
	for i := range 11 {
		_, err := services{API: a}.CreateService(ctx, &controlv1.CreateServiceRequest{
			Spec: serviceSpec(fmt.Sprintf("s%d", i), &typesv1.PortConfig{TargetPort: 80}),
		})
		if i < 10 && err != nil {
			t.Fatal(err)
		}
		if i == 10 && (!errors.Is(err, errs.Exhausted) || !strings.Contains(err.Error(), "no port from 30000 to 30009 is free")) {
			t.Errorf("the eleventh: %v", err)
		}
	}
	if n := node.machine.Snapshot().Count(typesv1.Kind_KIND_SERVICE); n != 10 {
		t.Errorf("%d services", n)
	}
}

// TestLists: filters, pages, and lookups by id, prefix and name.
func TestLists(t *testing.T) {
	a, _, ctx := newAPI(t)
	s := services{API: a}
	for _, name := range []string{"api", "back", "cache", "apex"} {
		if _, err := s.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: serviceSpec(name)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		filters []string
		want    string
	}{
		{nil, "apex api back cache"},
		{[]string{"name=ap"}, "apex api"},
		{[]string{"name=ap", "name=cache"}, "apex api cache"},
		{[]string{"name=ap", "label=tier=b"}, ""},
		{[]string{"label=tier=b"}, "back"},
		{[]string{"label=tier"}, "apex api back cache"},
		{[]string{"mode=global"}, ""},
	} {
		var got []string
		token := ""
		for {
			resp, err := s.ListServices(ctx, &controlv1.ListServicesRequest{Filters: tc.filters, PageSize: 1, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			for _, svc := range resp.GetServices() {
				got = append(got, svc.GetService().GetSpec().GetAnnotations().GetName())
			}
			if token = resp.GetNextPageToken(); token == "" {
				break
			}
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%v: %v, want %q", tc.filters, got, tc.want)
		}
	}
	for _, bad := range []*controlv1.ListServicesRequest{{Filters: []string{"color=red"}}, {Filters: []string{"name"}}, {PageSize: 1001}, {PageToken: "%"}} {
		if _, err := s.ListServices(ctx, bad); !errors.Is(err, errs.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	got, err := s.GetService(ctx, &controlv1.GetServiceRequest{Service: "api"})
	if err != nil {
		t.Fatal(err)
	}
	id := got.GetService().GetMeta().GetId()
	if by, err := s.GetService(ctx, &controlv1.GetServiceRequest{Service: id[:20]}); err != nil || by.GetService().GetMeta().GetId() != id {
		t.Errorf("by prefix: %v", err)
	}
	if _, err := s.GetService(ctx, &controlv1.GetServiceRequest{Service: "nope"}); !errors.Is(err, errs.NotFound) || err.Error() != "no such service: nope" {
		t.Errorf("unknown: %v", err)
	}
	if _, err := (nodes{API: a}).GetNode(ctx, &controlv1.GetNodeRequest{Node: "n"}); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "ambiguous") {
		t.Errorf("ambiguous: %v", err)
	}
}

// TestNodeRemoval: what is certified for the machine goes with it and is denied in the same revision.
func TestNodeRemoval(t *testing.T) {
	a, node, ctx := newAPI(t)
	if _, err := (nodes{API: a}).DeleteNode(ctx, &controlv1.DeleteNodeRequest{Node: "w1"}); err == nil || err.Error() != "node w1 is not down and can't be removed" {
		t.Errorf("a node that is up: %v", err)
	}
	before := node.machine.Snapshot().Version().Revision
	if _, err := (nodes{API: a}).DeleteNode(ctx, &controlv1.DeleteNodeRequest{Node: "w2"}); err != nil {
		t.Fatal(err)
	}
	snap := node.machine.Snapshot()
	if snap.Version().Revision != before+1 || snap.Node("n2") != nil || snap.Member("agent/n2") != nil || snap.Credential("agent/n2") != nil ||
		snap.Denial("agent/n2") == nil || snap.Denial("beef") == nil {
		t.Errorf("after the removal: %v", snap.DeniedList())
	}
}

// TestUpdateKeeps: an update keeps the ports and addresses that it does not change, counts task specs, and scaling is no
// new task spec.
func TestUpdateKeeps(t *testing.T) {
	a, _, ctx := newAPI(t)
	s := services{API: a}
	web, dns := &typesv1.PortConfig{TargetPort: 80}, &typesv1.PortConfig{TargetPort: 53, Protocol: typesv1.Protocol_PROTOCOL_UDP}
	made, err := s.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: serviceSpec("web", web, dns)})
	if err != nil {
		t.Fatal(err)
	}
	next := serviceSpec("web", dns, web)
	next.Mode = &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: new(uint64(7))}}
	up, err := s.UpdateService(ctx, &controlv1.UpdateServiceRequest{Service: "web", Version: made.GetVersion(), Spec: next})
	if err != nil {
		t.Fatal(err)
	}
	svc := up.GetService()
	if svc.GetSpecVersion() != 1 || len(svc.GetSpecHistory()) != 0 {
		t.Errorf("scaling made spec version %d", svc.GetSpecVersion())
	}
	for _, p := range svc.GetEndpoint().GetPorts() {
		for _, q := range made.GetService().GetEndpoint().GetPorts() {
			if p.GetTargetPort() == q.GetTargetPort() && p.GetPublishedPort() != q.GetPublishedPort() {
				t.Errorf("port %d moved from %d to %d", p.GetTargetPort(), q.GetPublishedPort(), p.GetPublishedPort())
			}
		}
	}
	renamed := serviceSpec("other")
	if _, err := s.UpdateService(ctx, &controlv1.UpdateServiceRequest{Service: "web", Version: up.GetVersion(), Spec: renamed}); !errors.Is(err, errs.Invalid) {
		t.Errorf("rename: %v", err)
	}
	if _, err := s.UpdateService(ctx, &controlv1.UpdateServiceRequest{Service: "web", Version: made.GetVersion(), Spec: next}); !errors.Is(err, errs.Conflict) {
		t.Errorf("stale: %v", err)
	}
}

// TestVirtualAddresses: a service keeps its address on a network through updates; with endpoint mode dnsrr it has none; and
// services that come and go leave none behind.
func TestVirtualAddresses(t *testing.T) {
	a, _, ctx := newAPI(t)
	s := services{API: a}
	if _, err := (networks{API: a}).CreateNetwork(ctx, &controlv1.CreateNetworkRequest{Spec: &typesv1.NetworkSpec{
		Annotations: &typesv1.Annotations{Name: "small"}, Subnets: []string{"10.5.0.0/29"}, Gateways: []string{"10.5.0.2"},
	}}); err != nil {
		t.Fatal(err)
	}
	on := func(name string, mode typesv1.EndpointMode) *typesv1.ServiceSpec {
		spec := serviceSpec(name)
		spec.Task.Networks = []*typesv1.NetworkAttachment{{Target: "small"}}
		spec.Endpoint = &typesv1.EndpointSpec{Mode: mode}
		return spec
	}
	made, err := s.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: on("web", typesv1.EndpointMode_ENDPOINT_MODE_VIP)})
	if err != nil {
		t.Fatal(err)
	}
	version, vip := made.GetVersion(), made.GetService().GetEndpoint().GetVirtualIps()[0].GetAddresses()[0]
	if vip != "10.5.0.3/29" {
		t.Errorf("got %s, want the first that is nobody's: .1 is kept for a gateway, .2 is the user's own", vip)
	}
	update := func(change func(*typesv1.ServiceSpec), mode typesv1.EndpointMode) []*typesv1.VirtualIP {
		t.Helper()
		spec := on("web", mode)
		change(spec)
		up, err := s.UpdateService(ctx, &controlv1.UpdateServiceRequest{Service: "web", Version: version, Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		version = up.GetVersion()
		return up.GetService().GetEndpoint().GetVirtualIps()
	}
	image := func(spec *typesv1.ServiceSpec) { spec.Task.Container.Image = "other" }
	if got := update(image, typesv1.EndpointMode_ENDPOINT_MODE_VIP); len(got) != 1 || got[0].GetAddresses()[0] != vip {
		t.Errorf("after an update: %v, want %s", got, vip)
	}
	if got := update(image, typesv1.EndpointMode_ENDPOINT_MODE_DNSRR); len(got) != 0 {
		t.Errorf("with dnsrr: %v", got)
	}
	for i := range 20 {
		if _, err := s.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: on("passing", typesv1.EndpointMode_ENDPOINT_MODE_VIP)}); err != nil {
			t.Fatalf("service %d on a network of four addresses: %v", i+1, err)
		}
		if _, err := s.DeleteService(ctx, &controlv1.DeleteServiceRequest{Service: "passing"}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := (networks{API: a}).GetNetwork(ctx, &controlv1.GetNetworkRequest{Network: "small"})
	if err != nil || got.GetUsage()[0].GetUsed() != 0 || got.GetUsage()[0].GetTotal() != 4 {
		t.Errorf("in the end: %v, %v", got.GetUsage(), err)
	}
}

// TestRest: a port that was given back is chosen again after five minutes, or when there is no other.
func TestRest(t *testing.T) {
	a, node, ctx := newAPI(t)
	s := services{API: a}
	made := 0
	create := func(want uint32) {
		t.Helper()
		made++
		resp, err := s.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: serviceSpec(fmt.Sprintf("s%d", made), &typesv1.PortConfig{TargetPort: 80})})
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.GetService().GetEndpoint().GetPorts()[0].GetPublishedPort(); got != want {
			t.Errorf("service %d got %d, want %d", made, got, want)
		}
	}
	remove := func(n int) {
		t.Helper()
		if _, err := s.DeleteService(ctx, &controlv1.DeleteServiceRequest{Service: fmt.Sprintf("s%d", n)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint32(10) {
		create(30000 + i)
	}
	remove(2)
	node.now = node.now.Add(6 * time.Minute)
	remove(1)
	create(30001) // not 30000, which rests
	create(30000) // nothing else is left
}
