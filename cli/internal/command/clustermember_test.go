package command_test

import (
	"context"
	"fmt"
	"slices"
	"strings"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
)

// addMember adds a process of a machine.
func (f *cluster) addMember(role authzv1.Role, machine, address string, load uint64) *controlv1.ListedMember {
	id := identity.ID{Role: role, Name: machine}.Member()
	m := &controlv1.ListedMember{
		Hostname: machine, Health: controlv1.MemberHealth_MEMBER_HEALTH_WELL,
		Member: &typesv1.Member{
			Meta: &typesv1.Meta{Id: id, Revision: 9}, Role: role, MachineId: machine, Addresses: []string{address},
			Version: "v0.3.0 go1.26 linux/amd64", FeatureLevel: 1, Weight: 10, Spec: &typesv1.MemberSpec{}, Status: &typesv1.MemberStatus{Load: load},
		},
	}
	f.members = append(f.members, m)
	return m
}

func (f *cluster) ListMembers(_ context.Context, req *controlv1.ListMembersRequest) (*controlv1.ListMembersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &controlv1.ListMembersResponse{}
	for i, g := range f.gateways {
		resp.Members = append(resp.Members, &controlv1.ListedMember{Member: &typesv1.Member{
			MachineId: fmt.Sprint(i), Role: authzv1.Role_ROLE_GATEWAY, Addresses: []string{g},
		}})
	}
	for _, m := range f.members {
		if !slices.ContainsFunc(req.GetFilters(), func(filter string) bool { return filter != "role="+identity.RoleName(m.GetMember().GetRole()) }) {
			resp.Members = append(resp.Members, m)
		}
	}
	return resp, nil
}

func (f *cluster) member(name string) (*controlv1.ListedMember, error) {
	for _, m := range f.members {
		if m.GetMember().GetMeta().GetId() == name {
			return m, nil
		}
	}
	return nil, errs.New(errs.NotFound, "there is none of that name")
}

// GetMember lets one of what a drained process has go at each look.
func (f *cluster) GetMember(_ context.Context, req *controlv1.GetMemberRequest) (*controlv1.GetMemberResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.member(req.GetMember())
	if err != nil {
		return nil, err
	}
	if status := m.GetMember().GetStatus(); m.GetMember().GetSpec().GetDrain() {
		if status.Load > 0 {
			status.Load--
		}
		status.Drained = status.GetLoad() == 0
	}
	return &controlv1.GetMemberResponse{Member: m}, nil
}

func (f *cluster) UpdateMember(_ context.Context, req *controlv1.UpdateMemberRequest) (*controlv1.UpdateMemberResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.member(req.GetMember())
	if err != nil {
		return nil, err
	}
	if req.Drain != nil {
		if req.GetDrain() && !req.GetForce() && f.last(m) {
			return nil, errs.New(errs.Precondition, "it is the last %s that takes work", identity.RoleName(m.GetMember().GetRole()))
		}
		m.GetMember().Spec.Drain, m.GetMember().Status.Drained = req.GetDrain(), false
	}
	if req.Voter != nil {
		if m.GetMember().GetRole() != authzv1.Role_ROLE_STORE {
			return nil, errs.New(errs.Invalid, "a %s does not vote", identity.RoleName(m.GetMember().GetRole()))
		}
		m.GetMember().Raft.Voter = req.GetVoter()
	}
	return &controlv1.UpdateMemberResponse{Member: m}, nil
}

// last says that nobody else of its role would be left to take over.
func (f *cluster) last(m *controlv1.ListedMember) bool {
	return !slices.ContainsFunc(f.members, func(other *controlv1.ListedMember) bool {
		return other != m && other.GetMember().GetRole() == m.GetMember().GetRole() && !other.GetMember().GetSpec().GetDrain()
	})
}

func (f *cluster) DeleteMember(_ context.Context, req *controlv1.DeleteMemberRequest) (*controlv1.DeleteMemberResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.member(req.GetMember())
	if err != nil {
		return nil, err
	}
	role, _, _ := strings.Cut(req.GetMember(), "/")
	if f.last(m) && !req.GetForce() {
		return nil, errs.New(errs.Precondition, "it is the last %s", role)
	}
	f.members = slices.DeleteFunc(f.members, func(other *controlv1.ListedMember) bool { return other == m })
	return &controlv1.DeleteMemberResponse{Id: req.GetMember()}, nil
}
