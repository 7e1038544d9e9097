package ca_test

import (
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

func roles(r ...authzv1.Role) []authzv1.Role { return r }

// remove does what the control API does with a process that is removed.
func (w *world) remove(member string) {
	w.store.Delete(state.Key{Kind: typesv1.Kind_KIND_MEMBER, ID: member}, state.Key{Kind: typesv1.Kind_KIND_CREDENTIAL, ID: member})
	w.store.Put(state.Wrap(&typesv1.Denial{Meta: &typesv1.Meta{Id: identity.DeniedBefore(member, w.now())}, Reason: "member rm"}))
}

// A machine may have any processes: one without agent and meshproxy is no node, and the cluster knows its name all the
// same. It gets more roles by the word of those that it has.
func TestAnyRolesOnAMachine(t *testing.T) {
	inWorld(t, func(w *world) {
		env := w.machine("edge", 2)
		r := w.mustJoin(env, w.made.ManagerToken, "10.0.0.2", roles(authzv1.Role_ROLE_DISPATCHER, authzv1.Role_ROLE_GATEWAY))
		s := w.store.Snapshot()
		if n := s.Node(r.MachineID); n != nil {
			t.Errorf("it is a node: %v", n)
		}
		for _, id := range []string{"dispatcher/" + r.MachineID, "gateway/" + r.MachineID} {
			if m := s.Member(id); m.GetHostname() != "edge" || len(m.GetAddresses()) != 1 {
				t.Errorf("%s: %v", id, m)
			}
		}
		w.mustJoin(env, w.made.WorkerToken, "10.0.0.2", roles(authzv1.Role_ROLE_MESHPROXY))
		n := w.store.Snapshot().Node(r.MachineID)
		if n.GetSpec().GetRole() != typesv1.NodeRole_NODE_ROLE_WORKER || len(n.GetIdentity().GetRoles()) != 3 {
			t.Errorf("with a meshproxy: %v", n)
		}
		stranger := w.machine("stranger", 3)
		if err := stranger.Files.Write(shoalDir+"/machine-id", []byte(r.MachineID+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := w.join(stranger, w.made.ManagerToken, "10.0.0.3", roles(authzv1.Role_ROLE_SCHEDULER)); !errs.Is(err, errs.Exists) {
			t.Errorf("a stranger adds a role to the machine: %v", err)
		}
	})
}

// A process that was removed comes back by a token: vouched for by the others of its machine, or as a new one where there
// are none. Its new certificate begins after the removal.
func TestARemovedProcessJoinsAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		for i, all := range [][]authzv1.Role{
			roles(authzv1.Role_ROLE_DISPATCHER, authzv1.Role_ROLE_GATEWAY), roles(authzv1.Role_ROLE_GATEWAY), roles(authzv1.Role_ROLE_CA),
		} {
			env := w.machine([]string{"both", "alone", "ca"}[i], uint64(i+2))
			r := w.mustJoin(env, w.made.ManagerToken, "10.0.0.2", all)
			last := all[len(all)-1]
			member := identity.ID{Role: last, Name: r.MachineID}.Member()
			if last == authzv1.Role_ROLE_CA {
				w.until("a copy of the keyset", func() bool { return w.copyOf(r.MachineID) != nil })
			}
			w.remove(member)
			if last == authzv1.Role_ROLE_CA {
				w.until("no copy of the keyset", func() bool { return w.copyOf(r.MachineID) == nil })
			}
			removed := w.now()
			w.mustJoin(env, w.made.ManagerToken, "10.0.0.2", roles(last))
			if w.store.Snapshot().Member(member) == nil {
				t.Errorf("%s is not back", member)
			}
			if begins := notBefore(t, env, last); begins.Before(removed.Truncate(time.Second)) || begins.After(removed.Add(time.Minute)) {
				t.Errorf("the new certificate of %s begins at %s, it was removed at %s", member, begins, removed)
			}
			if last == authzv1.Role_ROLE_CA {
				w.until("a copy of the keyset again", func() bool { return w.copyOf(r.MachineID) != nil })
			}
		}
	})
}

func notBefore(t *testing.T, env run.Env, role authzv1.Role) time.Time {
	t.Helper()
	keeper, err := identity.Load(env, shoalDir+"/"+identity.RoleName(role)+"/identity")
	if err != nil {
		t.Fatal(err)
	}
	return keeper.Certificate().NotBefore
}
