package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
)

// wrapTo gives the cluster's key to the CAs of these machines.
func wrapTo(t *testing.T, n *alone, machines ...string) {
	t.Helper()
	a := &typesv1.Authority{}
	for _, m := range machines {
		a.Keyset = append(a.Keyset, &typesv1.WrappedKey{MemberId: caOf(m)})
	}
	say(t, n, authzv1.Role_ROLE_CA, "ca0", desk.Put(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c"}, Authority: a}), "authority"))
}

// TestKeyIsNotLost: no removal, of a machine or a process, by force or two at once, takes the last CA that holds the
// cluster's key.
func TestKeyIsNotLost(t *testing.T) {
	a, node, ctx := newAPI(t)
	node.now = time.Unix(1_700_000_000, 0)
	announce(t, node, authzv1.Role_ROLE_CA, "n2", "w2") // beside the agent of a machine that is down
	announce(t, node, authzv1.Role_ROLE_CA, "c1", "m1")
	machine := func(ref string) error {
		_, err := nodes{API: a}.DeleteNode(ctx, &controlv1.DeleteNodeRequest{Node: ref, Force: true})
		return err
	}
	member := func(id string) error {
		_, err := members{API: a}.DeleteMember(ctx, &controlv1.DeleteMemberRequest{Member: id, Force: true})
		return err
	}
	refused := func(what string, err error) {
		t.Helper()
		if !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "no other CA holds the cluster's key") {
			t.Errorf("%s: %v", what, err)
		}
	}
	wrapTo(t, node, "n2") // c1 waits for it
	refused("the only holder's machine", machine("w2"))
	refused("the only holder", member("ca/w2"))
	if node.machine.Snapshot().Node("n2") == nil {
		t.Fatal("the machine has gone")
	}
	wrapTo(t, node, "n2", "c1")
	// While one removal is on its way, the other holder is the last.
	node.before = func(*storev1.Transaction) {
		refused("the other holder's machine meanwhile", machine("m1"))
		refused("the other holder meanwhile", member("ca/m1"))
	}
	if err := machine("w2"); err != nil {
		t.Fatal(err)
	}
	refused("who is left", machine("m1"))
}

// TestRemovalsOfTwoLeaders: what another leader has removed meanwhile is seen when the removal is applied.
func TestRemovalsOfTwoLeaders(t *testing.T) {
	a, node, ctx := newAPI(t)
	node.now = time.Unix(1_700_000_000, 0)
	announce(t, node, authzv1.Role_ROLE_CA, "c1", "m1")
	announce(t, node, authzv1.Role_ROLE_CA, "c2", "m2")
	wrapTo(t, node, "c1", "c2")
	other := New(a.cfg)
	node.before = func(*storev1.Transaction) {
		if _, err := (members{API: other}).DeleteMember(ctx, &controlv1.DeleteMemberRequest{Member: "ca/m2", Force: true}); err != nil {
			t.Error(err)
		}
	}
	if _, err := (nodes{API: a}).DeleteNode(ctx, &controlv1.DeleteNodeRequest{Node: "m1", Force: true}); err == nil {
		t.Error("both holders of the key were removed")
	}
	if node.machine.Snapshot().Member("ca/c1") == nil {
		t.Error("the last holder has gone")
	}
}

// TestMachineWithoutNode: a machine that has control processes alone is removed by its id, hostname or prefix, when all its
// processes are silent or by force; its identities are denied.
func TestMachineWithoutNode(t *testing.T) {
	a, node, ctx := newAPI(t)
	node.now = time.Unix(1_700_000_000, 0)
	announce(t, node, authzv1.Role_ROLE_GATEWAY, "abc1", "edge")
	announce(t, node, authzv1.Role_ROLE_DISPATCHER, "abc1", "edge", "store: waits")
	announce(t, node, authzv1.Role_ROLE_GATEWAY, "abd2", "twin")
	announce(t, node, authzv1.Role_ROLE_GATEWAY, "abe3", "twin")
	announce(t, node, authzv1.Role_ROLE_GATEWAY, "edge9", "other") // its id begins like another's hostname
	remove := func(ref string, force bool) (string, error) {
		resp, err := nodes{API: a}.DeleteNode(ctx, &controlv1.DeleteNodeRequest{Node: ref, Force: force})
		return resp.GetId(), err
	}
	for ref, want := range map[string]errs.Kind{"edge": errs.Precondition, "twin": errs.Invalid, "ab": errs.Invalid, "zz": errs.NotFound, "": errs.NotFound} {
		if _, err := remove(ref, false); !errs.Is(err, want) {
			t.Errorf("%q: %v, want %v", ref, err, want)
		}
	}
	node.now = node.machine.Snapshot().ClusterTime().Add(time.Minute)
	for ref, want := range map[string]string{"edge": "abc1", "abd": "abd2", "abe3": "abe3"} {
		if id, err := remove(ref, ref == "abd"); err != nil || id != want {
			t.Errorf("%s: %q, %v; want %s", ref, id, err, want)
		}
	}
	snap := node.machine.Snapshot()
	if snap.Member("gateway/abc1") != nil || snap.Credential("dispatcher/abc1") != nil || snap.Denial("gateway/abc1") == nil || snap.Denial(fmt.Sprintf("5e%dabc1", authzv1.Role_ROLE_GATEWAY)) == nil {
		t.Errorf("after the removal: %v", snap.DeniedList())
	}
	if snap.Member("gateway/edge9") == nil {
		t.Error("a machine that was not named has gone")
	}
}
