package control

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
)

// say applies what a process writes itself.
func say(t *testing.T, n *alone, role authzv1.Role, machine string, puts ...*storev1.Put) {
	t.Helper()
	tx := &storev1.Transaction{
		RequestId: fmt.Sprint(n.machine.Snapshot().Version().Revision), ClusterTime: timestamppb.New(n.now),
		Caller: &storev1.Caller{Role: role, Name: machine}, Puts: puts,
	}
	if out := n.machine.Apply(&storev1.LogEntry{Transactions: []*storev1.Transaction{tx}})[0].Outcome; out.GetRefusal() != 0 {
		t.Fatalf("%s/%s: %s", role, machine, out.GetMessage())
	}
}

// announce makes a member that has said how it is.
func announce(t *testing.T, n *alone, role authzv1.Role, machine, hostname string, waits ...string) {
	t.Helper()
	id := identity.ID{Role: role, Name: machine}.Member()
	say(t, n, authzv1.Role_ROLE_CA, "ca0", desk.Create(state.Wrap(&typesv1.Member{
		Meta: &typesv1.Meta{Id: id}, Role: role, MachineId: machine, Hostname: hostname,
	}), "role", "machine_id", "hostname"), desk.Create(state.Wrap(&typesv1.Credential{Meta: &typesv1.Meta{Id: id}, Serial: fmt.Sprintf("5e%d%s", role, machine)}), "serial"))
	say(t, n, role, machine, desk.Put(state.Wrap(&typesv1.Member{
		Meta: &typesv1.Meta{Id: id}, Status: &typesv1.MemberStatus{Waits: waits},
	}), "status"))
}

// TestMemberNames: a process is named by role and by id, hostname or the beginning of an id of its machine, which need not
// have a node.
func TestMemberNames(t *testing.T) {
	a, node, ctx := newAPI(t)
	announce(t, node, authzv1.Role_ROLE_GATEWAY, "abc1", "edge")
	announce(t, node, authzv1.Role_ROLE_GATEWAY, "abd2", "edge2")
	announce(t, node, authzv1.Role_ROLE_DISPATCHER, "abc1", "edge")
	for ref, want := range map[string]string{
		"gateway/abc1": "gateway/abc1", "gateway/edge": "gateway/abc1", "gateway/abd": "gateway/abd2", "dispatcher/ab": "dispatcher/abc1",
	} {
		got, err := members{API: a}.GetMember(ctx, &controlv1.GetMemberRequest{Member: ref})
		if err != nil || got.GetMember().GetMember().GetMeta().GetId() != want || got.GetMember().GetHostname() == "" {
			t.Errorf("%s: %v, %v; want %s", ref, got, err, want)
		}
	}
	for ref, want := range map[string]errs.Kind{
		"gateway/ab": errs.Invalid, "gateway/zz": errs.NotFound, "gateway/": errs.NotFound, "edge": errs.Invalid,
		"king/edge": errs.Invalid, "operator/ann": errs.Invalid, "scheduler/edge": errs.NotFound, "": errs.Invalid,
	} {
		if _, err := (members{API: a}).GetMember(ctx, &controlv1.GetMemberRequest{Member: ref}); !errs.Is(err, want) {
			t.Errorf("%q: %v, want %v", ref, err, want)
		}
	}
}

// TestMemberHealth: a process is what it says, until it has said nothing for too long; a holder until its lease is overdue.
func TestMemberHealth(t *testing.T) {
	a, node, ctx := newAPI(t)
	node.now = time.Unix(1_700_000_000, 0)
	announce(t, node, authzv1.Role_ROLE_GATEWAY, "g1", "edge")
	announce(t, node, authzv1.Role_ROLE_CA, "c1", "edge", "keyset: waits for another CA")
	announce(t, node, authzv1.Role_ROLE_DISPATCHER, "d1", "edge")
	say(t, node, authzv1.Role_ROLE_DISPATCHER, "d1", desk.Create(state.Wrap(&typesv1.Lease{
		Meta: &typesv1.Meta{Id: "dispatcher/d1"}, Holder: "dispatcher/d1", Number: 1, Ttl: durationpb.New(2 * time.Second),
	}), "holder", "number", "ttl"))
	began := node.machine.Snapshot().ClusterTime()
	for _, c := range []struct {
		after              time.Duration
		gateway, ca, dispd string
	}{
		{time.Second, "WELL", "WAITS", "WELL"},
		{10 * time.Second, "WELL", "WAITS", "SILENT"},
		{time.Minute, "SILENT", "SILENT", "SILENT"},
	} {
		node.now = began.Add(c.after)
		for member, want := range map[string]string{"gateway/g1": c.gateway, "ca/c1": c.ca, "dispatcher/d1": c.dispd} {
			got, err := members{API: a}.GetMember(ctx, &controlv1.GetMemberRequest{Member: member})
			if err != nil || got.GetMember().GetHealth().String() != "MEMBER_HEALTH_"+want {
				t.Errorf("%s after %s: %s, %v; want %s", member, c.after, got.GetMember().GetHealth(), err, want)
			}
		}
		list, err := members{API: a}.ListMembers(ctx, &controlv1.ListMembersRequest{Filters: []string{"health=silent", "role=gateway"}})
		if err != nil || len(list.GetMembers()) == 1 != (c.gateway == "SILENT") {
			t.Errorf("after %s: %v, %v", c.after, list, err)
		}
	}
}

// TestLastOfARoleStays: a process is neither drained nor removed while nobody else that lives could take over; force does
// it, but never loses the cluster's key.
func TestLastOfARoleStays(t *testing.T) {
	a, node, ctx := newAPI(t)
	s := members{API: a}
	node.now = time.Unix(1_700_000_000, 0)
	announce(t, node, authzv1.Role_ROLE_GATEWAY, "g1", "m1")
	announce(t, node, authzv1.Role_ROLE_CA, "c1", "m1")
	drain := func(id string, force bool) error {
		_, err := s.UpdateMember(ctx, &controlv1.UpdateMemberRequest{Member: id, Drain: proto.Bool(true), Force: force})
		return err
	}
	remove := func(id string, force bool) error {
		_, err := s.DeleteMember(ctx, &controlv1.DeleteMemberRequest{Member: id, Force: force})
		return err
	}
	refused := func(what string, err error, words string) {
		t.Helper()
		if !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want a refusal with %q", what, err, words)
		}
	}
	refused("drain the last", drain("gateway/g1", false), "shoal join --roles gateway")
	refused("remove the last", remove("gateway/g1", false), "shoal join --roles gateway")
	refused("remove the last holder of the key", remove("ca/c1", true), "holds the cluster's key")
	announce(t, node, authzv1.Role_ROLE_GATEWAY, "g2", "m2", "store: waits")
	refused("drain while the other waits", drain("gateway/g1", false), "no other gateway")
	announce(t, node, authzv1.Role_ROLE_GATEWAY, "g3", "m3")
	if err := drain("gateway/g1", false); err != nil {
		t.Error(err)
	}
	refused("drain the next", drain("gateway/g3", false), "no other gateway")
	// Another request is about to take the last of the others away.
	node.before = func(*storev1.Transaction) {
		refused("remove meanwhile", remove("gateway/g3", false), "no other gateway")
	}
	if err := remove("gateway/g1", false); err != nil {
		t.Error(err)
	}
	if err := remove("gateway/g3", true); err != nil {
		t.Error(err)
	}
	snap := node.machine.Snapshot()
	if snap.Member("gateway/g1") != nil || snap.Credential("gateway/g1") != nil {
		t.Error("the removed one is still there")
	}
	entries := 0
	for d := range snap.Removals("gateway/g1") {
		entries++
		if identity.Removed([]string{d.GetMeta().GetId()}, "gateway/g1").IsZero() {
			t.Errorf("entry %s says nothing", d.GetMeta().GetId())
		}
	}
	if entries != 1 {
		t.Errorf("%d entries of the deny list", entries)
	}
}

// TestMemberRequestsThatMakeNoSense are refused with all their faults.
func TestMemberRequestsThatMakeNoSense(t *testing.T) {
	a, node, ctx := newAPI(t)
	announce(t, node, authzv1.Role_ROLE_GATEWAY, "g1", "m1")
	say(t, node, authzv1.Role_ROLE_CA, "ca0", desk.Create(state.Wrap(&typesv1.Node{
		Meta: &typesv1.Meta{Id: "n3"}, Identity: &typesv1.NodeIdentity{Roles: []authzv1.Role{authzv1.Role_ROLE_AGENT}},
	}), "identity"))
	for _, req := range []*controlv1.UpdateMemberRequest{
		{Member: "gateway/g1"}, {Member: "gateway/g1", Voter: proto.Bool(true)}, {Member: "agent/n3", Drain: proto.Bool(true)},
	} {
		if _, err := (members{API: a}).UpdateMember(ctx, req); !errs.Is(err, errs.Invalid) {
			t.Errorf("%v: %v", req, err)
		}
	}
	if _, err := (members{API: a}).DeleteMember(ctx, &controlv1.DeleteMemberRequest{Member: "agent/n1"}); !errors.Is(err, errs.NotFound) {
		t.Errorf("a role that the machine does not have: %v", err)
	}
}
