package state_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// naive is the model: a plain map, and everything else counted from it each time.
type naive map[state.Key]*typesv1.Object

func (n naive) sorted() []state.Key {
	return slices.SortedFunc(maps.Keys(n), func(a, b state.Key) int {
		if a.Kind != b.Kind {
			return int(a.Kind - b.Kind)
		}
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
}

// claimed finds who holds a claim, and whether more than one does.
func (n naive) claimed(claim string) (holders []state.Key) {
	for _, k := range n.sorted() {
		if slices.Contains(state.Claims(n[k]), claim) {
			holders = append(holders, k)
		}
	}
	return holders
}

func drawObject(t *rapid.T) *typesv1.Object {
	small := rapid.IntRange(0, 5)
	id := fmt.Sprintf("id%d", small.Draw(t, "id"))
	meta := &typesv1.Meta{Id: id}
	address := fmt.Sprintf("10.0.0.%d/24", small.Draw(t, "address"))
	network := rapid.SampledFrom([]string{"", "id1", "id2"}).Draw(t, "network")
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return state.Wrap(&typesv1.Node{Meta: meta, Blocks: []string{address},
			Identity: &typesv1.NodeIdentity{Hostname: fmt.Sprintf("host%d", small.Draw(t, "host"))}})
	case 1:
		return state.Wrap(&typesv1.Service{Meta: meta,
			Spec: &typesv1.ServiceSpec{
				Annotations: &typesv1.Annotations{Name: fmt.Sprintf("name%d", small.Draw(t, "name"))},
				Task:        &typesv1.TaskSpec{Networks: []*typesv1.NetworkAttachment{{Target: network}}},
			},
			Endpoint: &typesv1.Endpoint{
				Ports:      []*typesv1.PortConfig{{PublishedPort: 30000 + uint32(small.Draw(t, "port"))}},
				VirtualIps: []*typesv1.VirtualIP{{NetworkId: network, Addresses: []string{address}}},
			}})
	case 2:
		return state.Wrap(&typesv1.Network{Meta: meta,
			Spec: &typesv1.NetworkSpec{Annotations: &typesv1.Annotations{Name: fmt.Sprintf("name%d", small.Draw(t, "name"))}},
			Ipam: &typesv1.NetworkIPAM{Vni: 4096 + uint32(small.Draw(t, "vni")), Subnets: []string{address}}})
	case 3:
		return state.Wrap(&typesv1.Member{Meta: meta, Role: authzv1.Role(small.Draw(t, "role"))})
	}
	return state.Wrap(&typesv1.Task{Meta: meta, ServiceId: fmt.Sprintf("id%d", small.Draw(t, "service")),
		Decided: &typesv1.TaskDecided{
			Slot: uint64(small.Draw(t, "slot")), NodeId: rapid.SampledFrom([]string{"", "id1", "id2"}).Draw(t, "node"),
			Addresses: []*typesv1.TaskAddress{{NetworkId: network, Addresses: []string{address}}},
		},
		Observed: &typesv1.TaskObserved{State: rapid.SampledFrom([]typesv1.TaskState{
			typesv1.TaskState_TASK_STATE_RUNNING, typesv1.TaskState_TASK_STATE_FAILED,
		}).Draw(t, "state")}})
}

// TestTxnsEqualRecount: after any sequence of transactions every index, claim and reference equals what is counted from
// the objects alone, and no earlier snapshot has changed.
func TestTxnsEqualRecount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type past struct {
			snapshot *state.Snapshot
			model    naive
		}
		history := []past{{state.Empty(), naive{}}}
		for range rapid.IntRange(1, 8).Draw(t, "transactions") {
			last := history[rapid.IntRange(0, len(history)-1).Draw(t, "from")] // branches, too
			txn, model := last.snapshot.Begin(), maps.Clone(last.model)
			for range rapid.IntRange(0, 8).Draw(t, "writes") {
				o := drawObject(t)
				if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
					txn.Delete(state.KeyOf(o))
					delete(model, state.KeyOf(o))
					continue
				}
				txn.Put(o)
				model[state.KeyOf(o)] = o
			}
			checkClashes(t, txn, last.model, model)
			if len(txn.Clashes()) > 0 {
				continue // a state machine refuses it
			}
			next := txn.Commit(state.Version{Revision: uint64(len(history))}, time.Unix(int64(len(history)), 0))
			history = append(history, past{next, model})
		}
		for _, p := range history {
			checkEqual(t, p.snapshot, p.model)
		}
	})
}

func checkClashes(t *rapid.T, txn *state.Txn, before, after naive) {
	var want []state.Clash
	seen := map[string]bool{}
	for _, key := range after.sorted() {
		for _, claim := range state.Claims(after[key]) {
			if h := after.claimed(claim); len(h) > 1 && !seen[claim] {
				seen[claim] = true
				want = append(want, state.Clash{Claim: claim, First: h[0], Second: h[1]})
			}
		}
	}
	slices.SortFunc(want, func(a, b state.Clash) int {
		if a.Claim < b.Claim {
			return -1
		}
		return 1
	})
	if diff := cmp.Diff(want, txn.Clashes()); diff != "" {
		t.Fatalf("clashes (-recount +txn):\n%s", diff)
	}
	got := map[state.Dangle]bool{}
	for _, d := range txn.Dangling() {
		got[d] = true
	}
	for key, o := range after {
		for _, to := range state.References(o) {
			_, present := after[to]
			_, wasPresent := before[to]
			changed := before[key] != o
			if d := (state.Dangle{From: key, To: to}); !present && (changed || wasPresent) && !got[d] {
				t.Fatalf("%v is not told", d)
			} else if present && got[d] {
				t.Fatalf("%v is told but its target is there", d)
			}
		}
	}
}

func checkEqual(t *rapid.T, s *state.Snapshot, model naive) {
	var keys []state.Key
	for o := range s.Objects() {
		keys = append(keys, state.KeyOf(o))
		if o != model[state.KeyOf(o)] {
			t.Fatalf("%s is another object", state.KeyOf(o))
		}
	}
	if diff := cmp.Diff(model.sorted(), keys); diff != "" {
		t.Fatalf("objects (-model +snapshot):\n%s", diff)
	}
	for claim, holder := range s.ClaimsFrom("") {
		if h := model.claimed(claim); len(h) != 1 || h[0] != holder {
			t.Fatalf("claim %s is held by %s, recounted %v", claim, holder, h)
		}
	}
	refs := map[state.Key][]state.Key{}
	byNode, byService := map[string][]string{}, map[string][]string{}
	for _, key := range model.sorted() {
		o := model[key]
		for _, claim := range state.Claims(o) {
			if holder, ok := s.ClaimHolder(claim); !ok || holder != key {
				t.Fatalf("claim %s of %s is held by %s (%v)", claim, key, holder, ok)
			}
		}
		for _, to := range state.References(o) {
			refs[to] = append(refs[to], key)
		}
		if task := o.GetTask(); task != nil {
			byNode[task.GetDecided().GetNodeId()] = append(byNode[task.GetDecided().GetNodeId()], key.ID)
			byService[task.GetServiceId()] = append(byService[task.GetServiceId()], key.ID)
		}
	}
	for i := range 6 {
		id := fmt.Sprintf("id%d", i)
		target := state.Key{Kind: typesv1.Kind_KIND_NETWORK, ID: id}
		if diff := cmp.Diff(refs[target], s.ReferencedBy(target)); diff != "" {
			t.Fatalf("references to %s (-recount +snapshot):\n%s", id, diff)
		}
		if diff := cmp.Diff(byNode[id], ids(slices.Collect(s.TasksOfNode(id)))); diff != "" {
			t.Fatalf("tasks of node %s (-recount +snapshot):\n%s", id, diff)
		}
		got := ids(slices.Collect(s.TasksOfService(id)))
		slices.Sort(got)
		if diff := cmp.Diff(byService[id], got); diff != "" {
			t.Fatalf("tasks of service %s (-recount +snapshot):\n%s", id, diff)
		}
	}
	checkSame(t, s, model)
	checkLookups(t, s, model)
}

// checkSame: each way to an object leads to what it is now, not to what it was before it was replaced.
func checkSame(t *rapid.T, s *state.Snapshot, model naive) {
	for _, key := range model.sorted() {
		switch o := model[key]; {
		case o.GetTask() != nil:
			is, d := o.GetTask(), o.GetTask().GetDecided()
			switch {
			case !slices.Contains(slices.Collect(s.TasksOfService(is.GetServiceId())), is):
				t.Fatalf("%s is another one by its service", key)
			case !slices.Contains(slices.Collect(s.TasksOfSlot(is.GetServiceId(), d.GetSlot())), is):
				t.Fatalf("%s is another one by its slot", key)
			case d.GetNodeId() != "" && !slices.Contains(slices.Collect(s.TasksOfNode(d.GetNodeId())), is):
				t.Fatalf("%s is another one by its node", key)
			}
		case o.GetNode() != nil:
			if name := state.Hostname(o.GetNode()); name != "" && !slices.Contains(s.NodesByHostname(name), o.GetNode()) {
				t.Fatalf("%s is another one by its host name", key)
			}
		case o.GetMember() != nil:
			if !slices.Contains(slices.Collect(s.MembersOfRole(o.GetMember().GetRole())), o.GetMember()) {
				t.Fatalf("%s is another one by its role", key)
			}
		}
	}
}

func checkLookups(t *rapid.T, s *state.Snapshot, model naive) {
	hosts, roles, slots := map[string]int{}, map[authzv1.Role]int{}, map[string]int{}
	for _, o := range model {
		switch {
		case o.GetNode() != nil:
			hosts[o.GetNode().GetIdentity().GetHostname()]++
		case o.GetMember() != nil:
			roles[o.GetMember().GetRole()]++
		case o.GetTask() != nil:
			slots[fmt.Sprint(o.GetTask().GetServiceId(), o.GetTask().GetDecided().GetSlot())]++
		case o.GetService() != nil:
			if s.ServiceByName(o.GetService().GetSpec().GetAnnotations().GetName()) != o.GetService() {
				t.Fatalf("service by name is another one")
			}
		case o.GetNetwork() != nil:
			if s.NetworkByName(o.GetNetwork().GetSpec().GetAnnotations().GetName()) != o.GetNetwork() {
				t.Fatalf("network by name is another one")
			}
		}
	}
	for i := range 6 {
		if n := len(s.NodesByHostname(fmt.Sprintf("host%d", i))); n != hosts[fmt.Sprintf("host%d", i)] {
			t.Fatalf("%d nodes of host%d, recounted %d", n, i, hosts[fmt.Sprintf("host%d", i)])
		}
		if n := len(slices.Collect(s.MembersOfRole(authzv1.Role(i)))); n != roles[authzv1.Role(i)] {
			t.Fatalf("%d members of role %d, recounted %d", n, i, roles[authzv1.Role(i)])
		}
		for slot := range uint64(6) {
			service := fmt.Sprintf("id%d", i)
			if n := len(slices.Collect(s.TasksOfSlot(service, slot))); n != slots[fmt.Sprint(service, slot)] {
				t.Fatalf("%d tasks of slot %s.%d", n, service, slot)
			}
		}
	}
}

func ids(tasks []*typesv1.Task) []string {
	var out []string
	for _, t := range tasks {
		out = append(out, t.GetMeta().GetId())
	}
	return out
}

// TestApply: a delta makes exactly the state that it carries; time never goes back.
func TestApply(t *testing.T) {
	s := state.Empty()
	first := s.Apply(&storev1.Delta{
		Version: state.Version{EpochNumber: 1, EpochNonce: 7, Revision: 1}.Proto(),
		Puts:    []*typesv1.Object{state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: "a"}})},
	})
	second := first.Apply(&storev1.Delta{
		Version: state.Version{EpochNumber: 1, EpochNonce: 7, Revision: 2}.Proto(),
		Deletes: []*storev1.Delete{{Kind: typesv1.Kind_KIND_NODE, Id: "a"}, {Kind: typesv1.Kind_KIND_NODE, Id: "never"}},
	})
	if first.Node("a") == nil || second.Node("a") != nil {
		t.Errorf("node a: after the put %v, after the delete %v", first.Node("a"), second.Node("a"))
	}
	if !second.Version().Reaches(first.Version()) || first.Version().Reaches(second.Version()) {
		t.Errorf("versions are out of order: %v, %v", first.Version(), second.Version())
	}
	if (state.Version{EpochNumber: 1, EpochNonce: 8, Revision: 9}).Reaches(first.Version()) {
		t.Error("the same epoch number with another nonce counts as the same history")
	}
	if got := second.ChangedAt(typesv1.Kind_KIND_NODE, typesv1.Kind_KIND_TASK); got != 2 {
		t.Errorf("nodes were changed at revision %d, want 2", got)
	}
	if got := second.ChangedAt(typesv1.Kind_KIND_TASK); got != 0 {
		t.Errorf("tasks were changed at revision %d, want never", got)
	}
	later := second.Begin().Commit(second.Version(), time.Unix(100, 0))
	if got := later.Begin().Commit(second.Version(), time.Unix(50, 0)).ClusterTime(); got != time.Unix(100, 0) {
		t.Errorf("cluster time went back to %v", got)
	}
}

// TestHandOver: within one transaction a claim may pass from one object to another, in either order of the writes.
func TestHandOver(t *testing.T) {
	port := func(id string, n uint32) *typesv1.Object {
		return state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: id},
			Endpoint: &typesv1.Endpoint{Ports: []*typesv1.PortConfig{{PublishedPort: n}}}})
	}
	base := state.Empty().Begin()
	base.Put(port("a", 30000))
	base.Put(port("b", 30001))
	s := base.Commit(state.Version{Revision: 1}, time.Time{})
	for _, order := range [][]*typesv1.Object{{port("a", 30001), port("b", 30000)}, {port("b", 30000), port("a", 30001)}} {
		txn := s.Begin()
		for _, o := range order {
			txn.Put(o)
		}
		if c := txn.Clashes(); len(c) != 0 {
			t.Errorf("a swap of ports clashes: %v", c)
		}
		after := txn.Commit(state.Version{Revision: 2}, time.Time{})
		if holder, _ := after.ClaimHolder("port/tcp/30000"); holder.ID != "b" {
			t.Errorf("port/tcp/30000 is held by %q, want b", holder.ID)
		}
	}
	txn := s.Begin()
	txn.Put(port("c", 30000))
	want := []state.Clash{{Claim: "port/tcp/30000", First: state.KeyOf(port("a", 0)), Second: state.KeyOf(port("c", 0))}}
	if diff := cmp.Diff(want, txn.Clashes()); diff != "" {
		t.Errorf("a stolen port (-want +got):\n%s", diff)
	}
}

// TestEveryKind: each kind can be wrapped, named and found again.
func TestEveryKind(t *testing.T) {
	meta := func(id string) *typesv1.Meta { return &typesv1.Meta{Id: id} }
	all := []proto.Message{
		&typesv1.Cluster{Meta: meta("x")}, &typesv1.Node{Meta: meta("x")}, &typesv1.Service{Meta: meta("x")},
		&typesv1.Task{Meta: meta("x")}, &typesv1.Network{Meta: meta("x")}, &typesv1.Secret{Meta: meta("x")},
		&typesv1.Config{Meta: meta("x")}, &typesv1.Volume{Meta: meta("x")}, &typesv1.Member{Meta: meta("x")},
		&typesv1.Lease{Meta: meta("x")}, &typesv1.Denial{Meta: meta("x")}, &typesv1.Credential{Meta: meta("x")},
		&typesv1.Load{Meta: meta("x")}, &typesv1.Payload{Meta: meta("x")}, &typesv1.Registry{Meta: meta("x")},
	}
	if len(all) != len(typesv1.Kind_name)-1 {
		t.Errorf("%d kinds here, %d in the proto", len(all), len(typesv1.Kind_name)-1)
	}
	for i, msg := range all {
		o := state.Wrap(msg)
		key := state.KeyOf(o)
		if key.Kind != state.Kinds()[i] || key.ID != "x" {
			t.Errorf("%T has the key %v", msg, key)
		}
		txn := state.Empty().Begin()
		txn.Put(o)
		if diff := cmp.Diff(msg, state.Unwrap(txn.Get(key)), protocmp.Transform()); diff != "" {
			t.Errorf("%s came back as another:\n%s", key, diff)
		}
	}
}
