package control

import (
	"cmp"
	"context"
	"fmt"
	"strings"

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

func (s nodes) remove(ctx context.Context, caller rpc.Caller, req *controlv1.DeleteNodeRequest) (*controlv1.DeleteNodeResponse, error) {
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	m, err := findMachine(snap, req.GetNode())
	if err != nil {
		return nil, err
	}
	// Step 1: may the cluster do without it?
	if err := s.admits.Look(snap, func(d *desk.Desk) error { return s.removable(d, m, req.GetForce()) }); err != nil {
		return nil, err
	}
	// Step 2: its voter goes first. The other order could leave a group that waits for a machine which nobody knows.
	if err := s.leaveGroup(ctx, "remove node "+m.hostname, m.id, false); err != nil {
		return nil, err
	}
	// Step 3: the machine, its processes and their certificates go, and their identities are denied, in one transaction.
	_, err = s.admits.Commit(ctx, caller, s.newID(), func(d *desk.Desk) (*storev1.Transaction, error) {
		if err := s.removable(d, m, req.GetForce()); err != nil {
			return nil, err
		}
		return s.removeTx(d, m)
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.DeleteNodeResponse{Id: m.id}, nil
}

// removed is a machine as its removal sees it. One that neither runs containers nor takes traffic has no node.
type removed struct{ id, hostname string }

// findMachine takes a machine's id, hostname, or a unique prefix of its id.
func findMachine(s *state.Snapshot, ref string) (removed, error) {
	all := map[string]removed{}
	for m := range s.Members() {
		id := m.GetMachineId()
		all[id] = removed{id, cmp.Or(hostnameOf(s, m), all[id].hostname, id)}
	}
	for n := range s.Nodes() {
		all[n.GetMeta().GetId()] = removed{n.GetMeta().GetId(), state.Hostname(n)}
	}
	delete(all, "")
	if m, ok := all[ref]; ok {
		return m, nil
	}
	var named, begun []removed
	for _, m := range all {
		if m.hostname == ref {
			named = append(named, m)
		}
		if ref != "" && strings.HasPrefix(m.id, ref) {
			begun = append(begun, m)
		}
	}
	if len(named) == 0 {
		named = begun
	}
	switch len(named) {
	case 0:
		return removed{}, errs.New(errs.NotFound, "no such node: %s", ref)
	case 1:
		return named[0], nil
	}
	return removed{}, errs.New(errs.Invalid, "node %s is ambiguous: %d machines match; use the id", ref, len(named))
}

// removable refuses the removal of a machine that lives, and of what the cluster needs.
func (s nodes) removable(d *desk.Desk, m removed, force bool) error {
	if !force && !s.down(d.Snap, m) {
		return errs.New(errs.Precondition, "node %s is not down and can't be removed", m.hostname)
	}
	_, err := keyKept(d, "node "+m.hostname, caOf(m.id))
	return err
}

// down is what its session says; where there is none, what its processes say themselves.
func (s nodes) down(snap *state.Snapshot, m removed) bool {
	if n := snap.Node(m.id); n != nil {
		return n.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_DOWN
	}
	for _, role := range processRoles() {
		p := snap.Member(identity.ID{Role: role, Name: m.id}.Member())
		if p == nil {
			continue
		}
		h := members{API: s.API}.health(snap, p)
		if h == controlv1.MemberHealth_MEMBER_HEALTH_WELL || h == controlv1.MemberHealth_MEMBER_HEALTH_WAITS {
			return false
		}
	}
	return true
}

// removeTx removes the machine and all that is certified for it.
func (s nodes) removeTx(d *desk.Desk, m removed) (*storev1.Transaction, error) {
	kept, err := keyKept(d, "node "+m.hostname, caOf(m.id))
	if err != nil {
		return nil, err
	}
	tx := &storev1.Transaction{Preconditions: kept}
	if d.Snap.Node(m.id) != nil {
		tx.Deletes = append(tx.Deletes, &storev1.Delete{Kind: typesv1.Kind_KIND_NODE, Id: m.id})
	}
	until := timestamppb.New(s.cfg.Node.ClusterTime().Add(denialLife(d.Snap)))
	reason := fmt.Sprintf("node %s was removed", m.hostname)
	for _, role := range processRoles() {
		member := identity.ID{Role: role, Name: m.id}.Member()
		p, c := d.Snap.Member(member), d.Snap.Credential(member)
		if p != nil {
			tx.Deletes = append(tx.Deletes, &storev1.Delete{Kind: typesv1.Kind_KIND_MEMBER, Id: member})
		}
		if c != nil {
			tx.Deletes = append(tx.Deletes, &storev1.Delete{Kind: typesv1.Kind_KIND_CREDENTIAL, Id: member})
			// The serial stays denied also when a CA lets the machine join again and takes its identities off the list.
			tx.Puts = append(tx.Puts, denial(d.Snap, c.GetSerial(), reason, until))
		}
		if p != nil || c != nil {
			tx.Puts = append(tx.Puts, denial(d.Snap, member, reason, until))
		}
	}
	if len(tx.GetDeletes()) == 0 {
		return nil, errs.New(errs.NotFound, "no such node: %s", m.hostname)
	}
	s.forgetDenials(d.Snap, tx)
	return tx, nil
}

// processRoles are the roles that a machine's processes have.
func processRoles() []authzv1.Role {
	return []authzv1.Role{
		authzv1.Role_ROLE_CA, authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_SCHEDULER, authzv1.Role_ROLE_DISPATCHER,
		authzv1.Role_ROLE_GATEWAY, authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY,
	}
}
