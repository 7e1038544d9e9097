package ca_test

import (
	"slices"
	"testing"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// A machine that is in the cluster gets a role that it has not had when one of its processes' keys vouches for it; who only
// knows its id, and a token, gets none.
func TestAKnownMachineIsVouchedForByItsOtherKeys(t *testing.T) {
	inWorld(t, func(w *world) {
		env := w.machine("second", 2)
		r := w.mustJoin(env, w.made.WorkerToken, "10.0.0.2", workerRoles())
		agent := identity.ID{Role: authzv1.Role_ROLE_AGENT, Name: r.MachineID}.Member()
		before := w.store.Snapshot().Credential(agent).GetMeta().GetRevision()
		w.mustJoin(env, w.made.ManagerToken, "10.0.0.2", []authzv1.Role{authzv1.Role_ROLE_DISPATCHER})
		s := w.store.Snapshot()
		if !slices.Contains(s.Node(r.MachineID).GetIdentity().GetRoles(), authzv1.Role_ROLE_DISPATCHER) {
			t.Errorf("its roles are %v", s.Node(r.MachineID).GetIdentity().GetRoles())
		}
		if s.Credential(agent).GetMeta().GetRevision() != before {
			t.Error("its agent, which runs, has another certificate now")
		}
		j := w.joiner(7)
		j.req.Token, j.req.MachineId = w.made.ManagerToken, r.MachineID
		j.req.Requests[0].Role = authzv1.Role_ROLE_GATEWAY
		if _, err := j.call(); !errs.Is(err, errs.Exists) {
			t.Errorf("without a key of the machine: %v", err)
		}
		own := j.request(authzv1.Role_ROLE_GATEWAY, j.key)
		own.Vouchers = [][]byte{{1, 2, 3}, j.req.GetRequests()[0].GetCsr()}
		j.req.Requests[0] = own
		if _, err := j.call(); !errs.Is(err, errs.Exists) {
			t.Errorf("with vouchers of nobody: %v", err)
		}
	})
}

func TestANewMachineMayBeginWithoutTasks(t *testing.T) {
	inWorld(t, func(w *world) {
		env := w.machine("second", 2)
		join := func(a typesv1.Availability) typesv1.Availability {
			r, err := enroll.Join(w.ctx, env, enroll.Request{
				Token: w.made.WorkerToken, Addresses: []string{caAddress}, Advertise: []string{"10.0.0.2"}, Roles: workerRoles(), Availability: a,
			})
			if err != nil {
				t.Fatal(err)
			}
			return w.store.Snapshot().Node(r.MachineID).GetSpec().GetAvailability()
		}
		if got := join(typesv1.Availability_AVAILABILITY_PAUSE); got != typesv1.Availability_AVAILABILITY_PAUSE {
			t.Errorf("it is %v", got)
		}
		// What a person has set since is not for the machine to change.
		if got := join(typesv1.Availability_AVAILABILITY_ACTIVE); got != typesv1.Availability_AVAILABILITY_PAUSE {
			t.Errorf("after a second join it is %v", got)
		}
	})
}
