package mesh_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/mesh"
)

// put makes the next snapshot; its objects get its revision, as the store does.
func put(s *state.Snapshot, objects ...proto.Message) *state.Snapshot {
	v := s.Version()
	v.EpochNumber, v.Revision = 1, v.Revision+1
	t := s.Begin()
	for _, o := range objects {
		t.Put(state.Wrap(proto.Clone(o)))
	}
	return t.Commit(v, time.Time{})
}

func drop(s *state.Snapshot, kind typesv1.Kind, id string) *state.Snapshot {
	v := s.Version()
	v.Revision++
	t := s.Begin()
	t.Delete(state.Key{Kind: kind, ID: id})
	return t.Commit(v, time.Time{})
}

func node(id string, st typesv1.NodeState) *typesv1.Node {
	return &typesv1.Node{Meta: &typesv1.Meta{Id: id}, Status: &typesv1.NodeStatus{State: st, Addresses: []string{"192.0.2.1"}}}
}

func web() *typesv1.Service {
	return &typesv1.Service{
		Meta: &typesv1.Meta{Id: "s1"}, Spec: &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: "web"}},
		Endpoint: &typesv1.Endpoint{Ports: []*typesv1.PortConfig{{PublishedPort: 8080, TargetPort: 80}}},
	}
}

// named is web with a virtual address and an alias on the overlay.
func named() *typesv1.Service {
	svc := web()
	svc.Spec.Task = &typesv1.TaskSpec{Networks: []*typesv1.NetworkAttachment{{Target: "o1", Aliases: []string{"shop"}}}}
	svc.Endpoint.VirtualIps = []*typesv1.VirtualIP{{NetworkId: "o1", Addresses: []string{"10.0.0.9/24"}}}
	return svc
}

func overlay() *typesv1.Network {
	return &typesv1.Network{
		Meta: &typesv1.Meta{Id: "o1"}, Spec: &typesv1.NetworkSpec{Annotations: &typesv1.Annotations{Name: "back"}},
		Ipam: &typesv1.NetworkIPAM{Vni: 4097},
	}
}

// running is a task that takes traffic.
func running(id, nodeID string) *typesv1.Task {
	return &typesv1.Task{
		Meta: &typesv1.Meta{Id: id}, ServiceId: "s1",
		Decided: &typesv1.TaskDecided{
			Slot: 1, NodeId: nodeID, Desired: typesv1.TaskState_TASK_STATE_RUNNING,
			Addresses: []*typesv1.TaskAddress{
				{Addresses: []string{"10.128.0.2/32", "fd00::2/128"}}, {NetworkId: "o1", Addresses: []string{"10.0.0.2/24"}},
			},
		},
		Observed: &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_RUNNING, Ready: true},
	}
}

const ready = typesv1.NodeState_NODE_STATE_READY

// Who takes traffic: a task that is wanted, running and ready on a machine that is heard; and nobody else.
func TestWhoTakesTraffic(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*typesv1.Task)
		node    typesv1.NodeState
		takes   bool
		drains  bool
		onPaths bool // has its entry on the overlay
	}{
		{"running and ready", func(*typesv1.Task) {}, ready, true, false, true},
		{"only assigned", func(x *typesv1.Task) { x.Observed = nil }, ready, false, false, true},
		{"not ready", func(x *typesv1.Task) { x.Observed.Ready = false }, ready, false, true, true},
		{"starting", func(x *typesv1.Task) { x.Observed.State = typesv1.TaskState_TASK_STATE_STARTING }, ready, false, false, true},
		{"told to stop", func(x *typesv1.Task) { x.Decided.Desired = typesv1.TaskState_TASK_STATE_SHUTDOWN }, ready, false, true, true},
		{"abandoned", func(x *typesv1.Task) { x.Decided.Abandoned = true }, ready, false, false, true},
		{"failed", func(x *typesv1.Task) { x.Observed.State = typesv1.TaskState_TASK_STATE_FAILED }, ready, false, false, false},
		{"node suspect", func(*typesv1.Task) {}, typesv1.NodeState_NODE_STATE_SUSPECT, false, true, true},
		{"node down", func(*typesv1.Task) {}, typesv1.NodeState_NODE_STATE_DOWN, false, false, true},
		{"no node", func(x *typesv1.Task) { x.Decided.NodeId = "" }, ready, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := running("t1", "n1")
			c.change(task)
			s := put(state.Empty(), node("n1", c.node), node("n2", ready), web(), overlay(), task, running("t2", "n2"))
			tables := mesh.Of(s, "n2", mesh.SharedOf(s, nil), nil)
			takes, drains := false, false
			for _, e := range tables.Shared.Services["s1"].GetEndpoints() {
				takes = takes || e.GetTaskId() == "t1" && !e.GetDraining()
				drains = drains || e.GetTaskId() == "t1" && e.GetDraining()
			}
			if takes != c.takes || drains != c.drains {
				t.Errorf("takes traffic: %t, drains: %t; want %t, %t", takes, drains, c.takes, c.drains)
			}
			entry := false
			for _, e := range tables.Networks["o1"].GetEntries() {
				entry = entry || e.GetTaskId() == "t1"
			}
			if entry != c.onPaths {
				t.Errorf("on the overlay: %t, want %t", entry, c.onPaths)
			}
		})
	}
}

// Addresses are those of the machine network for endpoints, of the overlay for entries, both without prefix lengths.
func TestAddresses(t *testing.T) {
	s := put(state.Empty(), node("n1", ready), web(), overlay(), running("t1", "n1"))
	tables := mesh.Of(s, "n1", mesh.SharedOf(s, nil), nil)
	if diff := cmp.Diff([]string{"10.128.0.2", "fd00::2"}, tables.Shared.Services["s1"].GetEndpoints()[0].GetAddresses()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"10.0.0.2"}, tables.Networks["o1"].GetEntries()[0].GetAddresses()); diff != "" {
		t.Error(diff)
	}
}

// A machine is told of an overlay only while it has a task on it, and of all published services.
func TestOnlyOwnNetworks(t *testing.T) {
	s := put(state.Empty(), node("n1", ready), node("n2", ready), web(), overlay(), running("t1", "n1"))
	shared := mesh.SharedOf(s, nil)
	if got := mesh.Of(s, "n2", shared, nil); len(got.Networks) != 0 || len(got.Shared.Services) != 1 {
		t.Fatalf("%d networks and %d services, want 0 and 1", len(got.Networks), len(got.Shared.Services))
	}
}

// The differences, one after the other or over several at once, lead to what the whole says; what says nothing new is nil
// and costs no new tables.
func TestDifferencesLeadToTheWhole(t *testing.T) {
	s := put(state.Empty(), node("n1", ready), named(), overlay(), running("t1", "n1"))
	stopping := running("t1", "n1")
	stopping.Decided.Desired = typesv1.TaskState_TASK_STATE_SHUTDOWN
	db := web()
	db.Meta.Id, db.Spec.Annotations.Name = "s2", "db"
	steps := []func(*state.Snapshot) *state.Snapshot{
		func(s *state.Snapshot) *state.Snapshot { return put(s, running("t2", "n1"), node("n2", ready)) },
		func(s *state.Snapshot) *state.Snapshot { return put(s, stopping) },
		func(s *state.Snapshot) *state.Snapshot {
			return put(s, &typesv1.Lease{Meta: &typesv1.Meta{Id: "scheduler"}})
		},
		func(s *state.Snapshot) *state.Snapshot {
			return put(s, node("n1", typesv1.NodeState_NODE_STATE_SUSPECT))
		},
		func(s *state.Snapshot) *state.Snapshot { return put(s, node("n1", ready), db) },
		func(s *state.Snapshot) *state.Snapshot { return drop(s, typesv1.Kind_KIND_TASK, "t1") },
		func(s *state.Snapshot) *state.Snapshot { return drop(s, typesv1.Kind_KIND_SERVICE, "s1") },
		func(s *state.Snapshot) *state.Snapshot { return drop(s, typesv1.Kind_KIND_NODE, "n2") },
		func(s *state.Snapshot) *state.Snapshot { return drop(s, typesv1.Kind_KIND_TASK, "t2") },
	}
	shared := mesh.SharedOf(s, nil)
	each := mesh.Of(s, "n1", shared, nil)
	rare := each
	has, hasRare := taken(nil, mesh.Full(each)), taken(nil, mesh.Full(each))
	for i, step := range steps {
		s = step(s)
		shared = mesh.SharedOf(s, shared)
		next := mesh.Of(s, "n1", shared, each)
		r := mesh.Diff(each, next)
		if lease := i == 2; lease != (r == nil) {
			t.Fatalf("step %d: difference %v", i, r)
		} else if lease && next.Shared != each.Shared {
			t.Fatal("a lease made new tables")
		}
		has, each = taken(has, r), next
		if i%3 == 2 {
			hasRare, rare = taken(hasRare, mesh.Diff(rare, next)), next
		}
		want := taken(nil, mesh.Full(mesh.Of(s, "n1", mesh.SharedOf(s, nil), nil)))
		if diff := cmp.Diff(want, has); diff != "" {
			t.Fatalf("step %d: %s", i, diff)
		}
		if i%3 == 2 {
			if diff := cmp.Diff(want, hasRare); diff != "" {
				t.Fatalf("step %d, over three: %s", i, diff)
			}
		}
	}
}

// A machine's new session changes nothing that others are told of it, and costs what one machine does, however many there are.
func TestNewSessionCostsOneMachine(t *testing.T) {
	s := state.Empty()
	var all []proto.Message
	for i := range 2000 {
		all = append(all, node(fmt.Sprintf("n%04d", i), ready))
	}
	s = put(s, all...)
	before := mesh.SharedOf(s, nil)
	bound := node("n0007", ready)
	bound.Status.Session = &typesv1.NodeSession{DispatcherId: "d1", Number: 1}
	s = put(s, bound)
	after := mesh.SharedOf(s, before)
	if len(after.Machines) != len(all) || mesh.Diff(mesh.Of(s, "n1", before, nil), mesh.Of(s, "n1", after, nil)) != nil {
		t.Fatalf("a new session told something of %d machines", len(after.Machines))
	}
	if cost := testing.AllocsPerRun(10, func() { mesh.SharedOf(s, before) }); cost > 50 {
		t.Errorf("%.0f allocations for one machine of %d", cost, len(all))
	}
}

// What lost its last object while a replica was away is gone from the tables too.
func TestResyncToNothing(t *testing.T) {
	s := put(state.Empty(), node("n1", ready), web(), running("t1", "n1"))
	shared := mesh.SharedOf(s, nil)
	old := mesh.Of(s, "n1", shared, nil)
	v := s.Version()
	v.Revision = 9
	txn := state.Empty().Begin()
	txn.Put(state.Wrap(node("n1", ready)))
	s = txn.Commit(v, time.Time{})
	r := mesh.Diff(old, mesh.Of(s, "n1", mesh.SharedOf(s, shared), old))
	if diff := cmp.Diff([]string{"s1"}, r.GetRemovedServices()); diff != "" {
		t.Fatal(diff)
	}
}

// taken is what a meshproxy has after a response, in text.
func taken(has map[string]string, r *dispatcherv1.EndpointsResponse) map[string]string {
	next := map[string]string{}
	if !r.GetFull() {
		for k, v := range has {
			next[k] = v
		}
	}
	text := func(m proto.Message) string {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			panic(err)
		}
		return string(b)
	}
	for _, x := range r.GetServices() {
		next["service/"+x.GetServiceId()] = text(x)
	}
	for _, x := range r.GetMachines() {
		next["machine/"+x.GetNodeId()] = text(x)
	}
	for _, x := range r.GetNetworks() {
		next["network/"+x.GetNetworkId()] = text(x)
	}
	for _, x := range r.GetNetworkServices() {
		next["name/"+x.GetNetworkId()+"/"+x.GetServiceId()] = text(x)
	}
	for _, x := range r.GetLocalTasks() {
		next["task/"+x.GetTaskId()] = text(x)
	}
	for _, k := range r.GetRemovedNetworkServices() {
		delete(next, "name/"+k.GetNetworkId()+"/"+k.GetServiceId())
	}
	for kind, ids := range map[string][]string{
		"task/": r.GetRemovedLocalTasks(), "service/": r.GetRemovedServices(), "machine/": r.GetRemovedMachines(), "network/": r.GetRemovedNetworks(),
	} {
		for _, id := range ids {
			delete(next, kind+id)
		}
	}
	return next
}

// A machine is told the names of the networks that it has a task on: of each service there its virtual address, aliases and
// ready tasks. And it is told its own tasks, by whose addresses it knows who asks.
func TestNamesOfOwnNetworks(t *testing.T) {
	own := named()
	own.Spec.Task = proto.CloneOf(own.GetSpec().GetTask())
	if own.Spec.Task == nil {
		own.Spec.Task = &typesv1.TaskSpec{}
	}
	own.Spec.Task.Container = &typesv1.ContainerSpec{DnsConfig: &typesv1.DNSConfig{Nameservers: []string{"9.9.9.9"}}}
	s := put(state.Empty(), node("n1", ready), node("n2", ready), own, overlay(), running("t1", "n1"))
	shared := mesh.SharedOf(s, nil)
	want := &dispatcherv1.EndpointsResponse{
		NetworkServices: []*dispatcherv1.NetworkService{{
			NetworkId: "o1", ServiceId: "s1", Name: "web", Vips: []string{"10.0.0.9"}, Aliases: []string{"shop"},
			Endpoints: []*dispatcherv1.NetworkEndpoint{{TaskId: "t1", Slot: 1, Addresses: []string{"10.0.0.2"}}},
		}},
		LocalTasks: []*dispatcherv1.LocalTask{{TaskId: "t1", ServiceId: "s1", Addresses: []string{"10.128.0.2", "fd00::2"}, NetworkIds: []string{"o1"}, Nameservers: []string{"9.9.9.9"}}},
	}
	for node, want := range map[string]*dispatcherv1.EndpointsResponse{"n1": want, "n2": {}} {
		full := mesh.Full(mesh.Of(s, node, shared, nil))
		got := &dispatcherv1.EndpointsResponse{NetworkServices: full.GetNetworkServices(), LocalTasks: full.GetLocalTasks()}
		if !proto.Equal(got, want) {
			t.Errorf("%s is told %v, want %v", node, got, want)
		}
	}
}

// One task that stops being ready changes one service on one network: with thousands of them, nothing else is sent.
func TestOneEndpointIsOneMessage(t *testing.T) {
	s := put(state.Empty(), node("n1", ready), named(), overlay(), running("t1", "n1"))
	for i := range 50 {
		svc := named()
		svc.Meta.Id = fmt.Sprintf("x%d", i)
		s = put(s, svc)
	}
	shared := mesh.SharedOf(s, nil)
	old := mesh.Of(s, "n1", shared, nil)
	task := running("t1", "n1")
	task.Observed.Ready = false
	s = put(s, task)
	r := mesh.Diff(old, mesh.Of(s, "n1", mesh.SharedOf(s, shared), old))
	if len(r.GetNetworkServices()) != 1 || len(r.GetRemovedNetworkServices())+len(r.GetLocalTasks())+len(r.GetRemovedLocalTasks()) != 0 {
		t.Fatalf("told %d names and %d tasks, want one name: %v", len(r.GetNetworkServices()), len(r.GetLocalTasks()), r)
	}
}

// Keys for encrypted networks come to every machine with its machines, and how traffic is encrypted with the tables; also when it is
// switched off again.
func TestEncryption(t *testing.T) {
	key := &typesv1.TunnelKey{Generation: 3, PublicKey: make([]byte, 32)}
	n1, vault := node("n1", ready), overlay()
	n1.Status.Description = &typesv1.NodeDescription{TunnelKeys: []*typesv1.TunnelKey{key}}
	vault.Spec.Encrypted = true
	cluster := func(mesh bool) *typesv1.Cluster {
		return &typesv1.Cluster{Meta: &typesv1.Meta{Id: "c"}, Spec: &typesv1.ClusterSpec{Encryption: &typesv1.Encryption{Mesh: mesh}}}
	}
	s := put(state.Empty(), cluster(true), n1, node("n2", ready), web(), vault, running("t1", "n2"))
	shared := mesh.SharedOf(s, nil)
	old := mesh.Of(s, "n2", shared, nil)
	full := mesh.Full(old)
	if !full.GetEncryption().GetMesh() || !full.GetNetworks()[0].GetEncrypted() || !proto.Equal(full.GetMachines()[0].GetTunnelKeys()[0], key) {
		t.Errorf("told %v", full)
	}
	off := cluster(false)
	off.Spec.Encryption = nil
	s = put(s, off)
	r := mesh.Diff(old, mesh.Of(s, "n2", mesh.SharedOf(s, shared), old))
	if r == nil || r.GetEncryption() == nil || r.GetEncryption().GetMesh() {
		t.Errorf("switched off, told %v", r)
	}
}
