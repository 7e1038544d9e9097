package ca_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const secondAddress = "10.0.0.2:2377"

// withSecondCA joins a manager and starts its CA.
func (w *world) withSecondCA() (r enroll.Result) {
	w.t.Helper()
	env := w.machine("second", 2)
	r = w.mustJoin(env, w.made.ManagerToken, "10.0.0.2", managerRoles())
	w.startCA(env, "10.0.0.2")
	return r
}

func (w *world) copyOf(machine string) *typesv1.WrappedKey {
	for _, c := range w.store.Snapshot().Cluster().GetAuthority().GetKeyset() {
		if c.GetMemberId() == "ca/"+machine {
			return c
		}
	}
	return nil
}

func TestASecondCAGetsTheKeysetAndServes(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.withSecondCA()
		w.until("the second CA has a copy", func() bool { return w.copyOf(r.MachineID) != nil })
		third := w.machine("third", 3)
		w.until("a machine joins by the second CA", func() bool {
			time.Sleep(2 * time.Second)
			_, err := enroll.Join(w.ctx, third, enroll.Request{
				Token: w.made.WorkerToken, Addresses: []string{secondAddress}, Advertise: []string{"10.0.0.3"}, Roles: workerRoles(),
			})
			return err == nil
		})
		chain, _ := third.Files.Read(agentDir + "/cert.pem")
		verifyLeaf(t, chain, []byte(w.made.Bundle), third.Now())
		certs, _ := identity.DecodeCertificates(chain)
		if !strings.Contains(certs[1].Subject.CommonName, r.MachineID) {
			t.Errorf("issued by %s, wanted the second CA's own issuing certificate", certs[1].Subject)
		}
		// What either certified, either renews.
		if _, err := w.renewOnce(third, agentDir, caAddress); err != nil {
			t.Error(err)
		}
	})
}

func TestTheKeysetIsNotHandedToWhoIsNoCA(t *testing.T) {
	inWorld(t, func(w *world) {
		member := func(id string, role authzv1.Role) {
			w.store.Put(state.Wrap(&typesv1.Member{
				Meta: &typesv1.Meta{Id: id}, Role: role, MachineId: strings.Split(id, "/")[1], WrapKey: make([]byte, 31, 32),
			}))
		}
		own := w.store.Snapshot().Member("ca/" + w.made.MachineID).GetWrapKey()
		// A member that claims to be a CA and was never certified; a store with a wrap key; a removed CA.
		for id, role := range map[string]authzv1.Role{"ca/uncertified": authzv1.Role_ROLE_CA, "store/other": authzv1.Role_ROLE_STORE, "ca/removed": authzv1.Role_ROLE_CA} {
			member(id, role)
			m := proto.CloneOf(w.store.Snapshot().Member(id))
			m.WrapKey = own
			w.store.Put(state.Wrap(m))
		}
		w.store.Put(
			state.Wrap(&typesv1.Denial{Meta: &typesv1.Meta{Id: "ca/removed"}}),
			state.Wrap(&typesv1.Credential{Meta: &typesv1.Meta{Id: "ca/removed"}, Serial: "1", NotAfter: w.store.Snapshot().Credential("ca/" + w.made.MachineID).GetNotAfter()}),
		)
		time.Sleep(10 * time.Second)
		if n := len(w.store.Snapshot().Cluster().GetAuthority().GetKeyset()); n != 1 {
			t.Errorf("%d copies of the keyset, wanted the first CA's alone", n)
		}
	})
}

func TestARemovedCALosesItsCopy(t *testing.T) {
	inWorld(t, func(w *world) {
		r := w.mustJoin(w.machine("second", 2), w.made.ManagerToken, "10.0.0.2", managerRoles())
		w.until("a copy", func() bool { return w.copyOf(r.MachineID) != nil })
		w.store.Put(state.Wrap(&typesv1.Denial{Meta: &typesv1.Meta{Id: "ca/" + r.MachineID}}))
		w.until("none any more", func() bool { return w.copyOf(r.MachineID) == nil })
	})
}

func TestACARestartsWithItsKeys(t *testing.T) {
	inWorld(t, func(w *world) {
		env := w.machine("second", 2)
		r := w.mustJoin(env, w.made.ManagerToken, "10.0.0.2", managerRoles())
		stop := w.startCA(env, "10.0.0.2")
		issuing := func() string {
			data, _ := env.Files.Read(shoalDir + "/ca/issuing/cert.pem")
			return string(data)
		}
		w.until("an issuing certificate", func() bool { return issuing() != "" })
		before, copied := issuing(), w.copyOf(r.MachineID)
		stop()
		w.startCA(env, "10.0.0.2")
		time.Sleep(10 * time.Second)
		if issuing() != before || !proto.Equal(copied, w.copyOf(r.MachineID)) {
			t.Error("a restart made new keys")
		}
	})
}

func TestRotationGivesAnotherTokenThatWorks(t *testing.T) {
	inWorld(t, func(w *world) {
		next := w.rotate(typesv1.NodeRole_NODE_ROLE_WORKER)
		if next == w.made.WorkerToken || next != w.tokenOf(typesv1.NodeRole_NODE_ROLE_WORKER) {
			t.Error("the token in force is not the new one")
		}
		if w.tokenOf(typesv1.NodeRole_NODE_ROLE_MANAGER) != w.made.ManagerToken {
			t.Error("the manager's token changed too")
		}
		w.mustJoin(w.machine("second", 2), next, "10.0.0.2", workerRoles())
	})
}

// TestNoSecretIsLogged looks for every secret of a whole story in all logs.
func TestNoSecretIsLogged(t *testing.T) {
	inWorld(t, func(w *world) {
		w.withSecondCA()
		second := w.rotate(typesv1.NodeRole_NODE_ROLE_WORKER)
		_, err := w.join(w.machine("third", 3), w.made.WorkerToken, "10.0.0.3", workerRoles())
		if err == nil {
			t.Fatal("a rotated token was accepted")
		}
		env := w.machine("fourth", 4)
		w.mustJoin(env, second, "10.0.0.4", workerRoles())
		secrets := map[string]string{}
		for i, token := range []string{w.made.WorkerToken, w.made.ManagerToken, second} {
			secrets["token "+string(rune('0'+i))] = token[len(token)-25:]
		}
		for _, file := range []string{"ca/issuing/key.pem", "ca/wrap.key", "ca/identity/key.pem", "store/identity/key.pem"} {
			data, readErr := w.first.Files.Read(shoalDir + "/" + file)
			if readErr != nil {
				t.Fatal(readErr)
			}
			secrets[file] = strings.Split(string(data), "\n")[1]
		}
		for name, secret := range secrets {
			if strings.Contains(w.logged(), secret) {
				t.Errorf("%s is in the log", name)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s is in an error", name)
			}
		}
		if printed := strings.Join([]string{w.made.String(), w.made.GoString()}, ""); strings.Contains(printed, "PRIVATE") || strings.Contains(printed, "SHOAL-1") {
			t.Error("a result prints its secrets")
		}
	})
}
