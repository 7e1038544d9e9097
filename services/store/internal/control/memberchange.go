package control

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

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

// UpdateMember implements MemberService. What it wants may hold already: then nothing is done again, so it is repeatable.
func (s members) UpdateMember(ctx context.Context, req *controlv1.UpdateMemberRequest) (*controlv1.UpdateMemberResponse, error) {
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.UpdateMemberResponse, error) {
			return s.update(ctx, caller, req)
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.UpdateMemberResponse, error) {
			return controlv1.NewMemberServiceClient(conn).UpdateMember(ctx, req)
		})
}

func (s members) update(ctx context.Context, caller rpc.Caller, req *controlv1.UpdateMemberRequest) (*controlv1.UpdateMemberResponse, error) {
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	m, err := findMember(snap, req.GetMember())
	if err != nil {
		return nil, err
	}
	if err := changeable(req, m); err != nil {
		return nil, err
	}
	// Step 1: the vote, which may move the leadership and with it this call.
	if req.Voter != nil {
		if err := s.vote(ctx, req, m); err != nil {
			return nil, err
		}
	}
	// Step 2: the wish that the process itself reads.
	if req.Drain != nil && req.GetDrain() != m.GetSpec().GetDrain() {
		if err := s.drain(ctx, caller, req, m); err != nil {
			return nil, err
		}
	}
	snap = s.cfg.Node.View().Image.Snapshot()
	if m = snap.Member(m.GetMeta().GetId()); m == nil {
		return nil, errs.New(errs.NotFound, "member %s was updated and has been removed since", req.GetMember())
	}
	return &controlv1.UpdateMemberResponse{Member: s.listed(snap, m), Version: desk.VersionOf(snap, m.GetMeta())}, nil
}

// changeable finds all that can't be meant.
func changeable(req *controlv1.UpdateMemberRequest, m *typesv1.Member) error {
	var c errs.Collector
	role := identity.RoleName(m.GetRole())
	c.Check(req.Drain != nil || req.Voter != nil, "drain", "is missing, and so is voter: there is nothing to change")
	c.Check(req.Voter == nil || m.GetRole() == authzv1.Role_ROLE_STORE, "voter", "is for stores; this is a %s", role)
	c.Check(req.Drain == nil || !ofMachine(m.GetRole()), "drain", "is not for a %s; `shoal node update --availability drain` takes the tasks off a machine", role)
	return c.Err("update member " + m.GetMeta().GetId())
}

// ofMachine says that the role is one of a machine's own processes, which have no way to the store.
func ofMachine(r authzv1.Role) bool {
	return r == authzv1.Role_ROLE_AGENT || r == authzv1.Role_ROLE_MESHPROXY
}

// vote makes a voter of a store, or a learner. The store announces what it is by itself.
func (s members) vote(ctx context.Context, req *controlv1.UpdateMemberRequest, m *typesv1.Member) error {
	what := fmt.Sprintf("update member %s", m.GetMeta().GetId())
	p := s.cfg.Node.View().PeerOn(m.GetMachineId())
	if p == nil {
		return errs.New(errs.Precondition, "%s: the store has not been taken in yet; see what it waits for with `shoal member inspect`", what)
	}
	if !req.GetVoter() && p.GetVoter() {
		if err := s.handOver(ctx, what, p.GetRaftId(), req.GetForce()); err != nil {
			return err
		}
	}
	if err := s.cfg.Node.SetVoter(ctx, p.GetRaftId(), req.GetVoter(), req.GetForce()); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (s members) drain(ctx context.Context, caller rpc.Caller, req *controlv1.UpdateMemberRequest, m *typesv1.Member) error {
	_, err := s.admits.Commit(ctx, caller, s.newID(), func(d *desk.Desk) (*storev1.Transaction, error) {
		now := d.Snap.Member(m.GetMeta().GetId())
		if now == nil {
			return nil, errs.New(errs.NotFound, "no such member: %s", req.GetMember())
		}
		if req.GetDrain() && !req.GetForce() && !s.others(d, now) {
			return nil, errs.New(errs.Precondition, "member %s can't be drained: no other %s is there to take over; join another first (`shoal join --roles %s`), or use force",
				now.GetMeta().GetId(), identity.RoleName(now.GetRole()), identity.RoleName(now.GetRole()))
		}
		next := &typesv1.Member{Meta: now.GetMeta(), Spec: &typesv1.MemberSpec{Drain: req.GetDrain()}}
		return &storev1.Transaction{Puts: []*storev1.Put{desk.Put(state.Wrap(next), "spec")}}, nil
	})
	return err
}

// others reports whether somebody of the same role is there to take over: heard lately, not drained, and not about to be
// removed by another request.
func (s members) others(d *desk.Desk, m *typesv1.Member) bool {
	for o := range d.Snap.MembersOfRole(m.GetRole()) {
		id := o.GetMeta().GetId()
		if id == m.GetMeta().GetId() || o.GetSpec().GetDrain() || d.Taken(desk.DeleteClaim(typesv1.Kind_KIND_MEMBER, id)) {
			continue
		}
		if h := s.health(d.Snap, o); h == controlv1.MemberHealth_MEMBER_HEALTH_WELL {
			return true
		}
	}
	return false
}
