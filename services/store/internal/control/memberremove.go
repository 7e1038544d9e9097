package control

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
)

// DeleteMember implements MemberService.
func (s members) DeleteMember(ctx context.Context, req *controlv1.DeleteMemberRequest) (*controlv1.DeleteMemberResponse, error) {
	return onLeader(ctx, s.API, false,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.DeleteMemberResponse, error) {
			return s.remove(ctx, caller, req)
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.DeleteMemberResponse, error) {
			return controlv1.NewMemberServiceClient(conn).DeleteMember(ctx, req)
		})
}

func (s members) remove(ctx context.Context, caller rpc.Caller, req *controlv1.DeleteMemberRequest) (*controlv1.DeleteMemberResponse, error) {
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	m, err := findMember(snap, req.GetMember())
	if err != nil {
		return nil, err
	}
	id := m.GetMeta().GetId()
	// Step 1: may the cluster do without it?
	spare := func(d *desk.Desk) error { return s.spare(d, m, req.GetForce()) }
	if err := s.admits.Look(snap, spare); err != nil {
		return nil, err
	}
	// Step 2: a store leaves the group first. The other order could leave a group that waits for a store nobody knows.
	if m.GetRole() == authzv1.Role_ROLE_STORE {
		if err := s.leaveGroup(ctx, "remove member "+id, m.GetMachineId(), req.GetForce()); err != nil {
			return nil, err
		}
	}
	// Step 3: the process and its certificate go, and what was certified for it until now is refused, in one transaction.
	_, err = s.admits.Commit(ctx, caller, s.newID(), func(d *desk.Desk) (*storev1.Transaction, error) {
		if err := spare(d); err != nil {
			return nil, err
		}
		return s.removal(d, m)
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.DeleteMemberResponse{Id: id}, nil
}

// spare refuses the removal of what the cluster needs. A store is judged by the group it is in.
func (s members) spare(d *desk.Desk, m *typesv1.Member, force bool) error {
	id, role := m.GetMeta().GetId(), identity.RoleName(m.GetRole())
	switch {
	case m.GetRole() == authzv1.Role_ROLE_STORE:
		return nil
	case ofMachine(m.GetRole()):
		if d.Snap.Node(m.GetMachineId()).GetStatus().GetState() != typesv1.NodeState_NODE_STATE_DOWN && !force {
			return errs.New(errs.Precondition, "member %s can't be removed: its machine is not down; stop the process there first (`shoal leave --roles %s` on it), or use force", id, role)
		}
		return nil
	}
	if _, err := keyKept(d, "member "+id, id); err != nil {
		return err
	}
	if !force && !s.others(d, m) {
		return errs.New(errs.Precondition, "member %s can't be removed: no other %s is there to take over; join another first (`shoal join --roles %s`), or use force", id, role, role)
	}
	return nil
}

// keyKept refuses to remove a CA beside which nobody has been given the keyset key: the root's key would be lost with it, so
// that force does not help. Else it is the condition that the other one is still certified when the removal is applied: two
// removals at once must not take both.
func keyKept(d *desk.Desk, what, ca string) ([]*storev1.Precondition, error) {
	if d.Snap.Member(ca).GetRole() != authzv1.Role_ROLE_CA {
		return nil, nil
	}
	for _, k := range d.Snap.Cluster().GetAuthority().GetKeyset() {
		id := k.GetMemberId()
		if id == ca || d.Snap.Member(id) == nil || d.Taken(desk.DeleteClaim(typesv1.Kind_KIND_MEMBER, id)) {
			continue
		}
		return []*storev1.Precondition{{Condition: &storev1.Precondition_Unchanged{Unchanged: &storev1.Unchanged{
			Kind: typesv1.Kind_KIND_CREDENTIAL, Id: id, Revision: d.Snap.Credential(id).GetMeta().GetRevision(),
		}}}}, nil
	}
	return nil, errs.New(errs.Precondition, "%s can't be removed: no other CA holds the cluster's key; join another (`shoal join --roles ca`) and wait until it is well", what)
}

// caOf is a machine's CA as a member.
func caOf(machine string) string {
	return identity.ID{Role: authzv1.Role_ROLE_CA, Name: machine}.Member()
}

// removal removes the process and all that is certified for it. The machine's other processes stay, and it may be given
// a new certificate: what is refused is what was issued until now.
func (s members) removal(d *desk.Desk, m *typesv1.Member) (*storev1.Transaction, error) {
	snap, id := d.Snap, m.GetMeta().GetId()
	kept, err := keyKept(d, "member "+id, id)
	if err != nil {
		return nil, err
	}
	tx := &storev1.Transaction{Preconditions: kept}
	if snap.Member(id) != nil {
		tx.Deletes = append(tx.Deletes, &storev1.Delete{Kind: typesv1.Kind_KIND_MEMBER, Id: id})
	}
	if snap.Credential(id) != nil {
		tx.Deletes = append(tx.Deletes, &storev1.Delete{Kind: typesv1.Kind_KIND_CREDENTIAL, Id: id})
	}
	if n := snap.Node(m.GetMachineId()); n != nil {
		forgetRole(tx, n, m.GetRole())
	}
	if len(tx.GetDeletes()) == 0 && len(tx.GetPuts()) == 0 {
		return nil, errs.New(errs.NotFound, "no such member: %s", id)
	}
	now := s.cfg.Node.ClusterTime()
	entry := identity.DeniedBefore(id, now)
	tx.Puts = append(tx.Puts, denial(snap, entry, fmt.Sprintf("member %s was removed", id), timestamppb.New(now.Add(denialLife(snap)))))
	nodes{API: s.API}.forgetDenials(snap, tx)
	return tx, nil
}

// forgetRole takes a role off a machine: it is a manager no more without its store, and not of the cluster when it neither
// runs containers nor takes traffic.
func forgetRole(tx *storev1.Transaction, n *typesv1.Node, role authzv1.Role) {
	roles := n.GetIdentity().GetRoles()
	if !slices.Contains(roles, role) {
		return
	}
	left := slices.DeleteFunc(slices.Clone(roles), func(r authzv1.Role) bool { return r == role })
	if ofMachine(role) && !slices.ContainsFunc(left, ofMachine) {
		tx.Deletes = append(tx.Deletes, &storev1.Delete{Kind: typesv1.Kind_KIND_NODE, Id: n.GetMeta().GetId()})
		return
	}
	next := &typesv1.Node{Meta: n.GetMeta(), Spec: proto.CloneOf(n.GetSpec()), Identity: proto.CloneOf(n.GetIdentity())}
	next.Identity.Roles = left
	fields := []string{"identity"}
	if role == authzv1.Role_ROLE_STORE {
		next.Spec.Role = typesv1.NodeRole_NODE_ROLE_WORKER
		fields = append(fields, "spec")
	}
	tx.Puts = append(tx.Puts, desk.Put(state.Wrap(next), fields...))
}
