package control

import (
	"cmp"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
)

func findService(s *state.Snapshot, ref string) (*typesv1.Service, error) {
	if svc := s.Service(ref); svc != nil {
		return svc, nil
	}
	if svc := s.ServiceByName(ref); svc != nil {
		return svc, nil
	}
	return desk.ByPrefix("service", ref, s.Services())
}

func findNetwork(s *state.Snapshot, ref string) (*typesv1.Network, error) {
	if n := s.Network(ref); n != nil {
		return n, nil
	}
	if n := s.NetworkByName(ref); n != nil {
		return n, nil
	}
	return desk.ByPrefix("network", ref, s.Networks())
}

func findTask(s *state.Snapshot, ref string) (*typesv1.Task, error) {
	if t := s.Task(ref); t != nil {
		return t, nil
	}
	return desk.ByPrefix("task", ref, s.Tasks())
}

func findNode(s *state.Snapshot, ref string) (*typesv1.Node, error) {
	if n := s.Node(ref); n != nil {
		return n, nil
	}
	switch same := s.NodesByHostname(ref); len(same) {
	case 0:
		return desk.ByPrefix("node", ref, s.Nodes())
	case 1:
		return same[0], nil
	default:
		return nil, errs.New(errs.Invalid, "node %s is ambiguous: %d machines have that hostname; use the id", ref, len(same))
	}
}

// findMember takes `role/machine`, where machine is an id, a hostname or a unique prefix of an id.
func findMember(s *state.Snapshot, ref string) (*typesv1.Member, error) {
	name, machine, ok := strings.Cut(ref, "/")
	role, err := identity.ParseRole(name)
	if !ok || err != nil || identity.IsPerson(role) {
		return nil, errs.New(errs.Invalid, "member %q is not of the form role/machine; `shoal member ls` shows them", ref)
	}
	var all []*typesv1.Member
	for m := range allMembers(s) {
		if m.GetRole() != role {
			continue
		}
		if m.GetMachineId() == machine {
			return m, nil
		}
		all = append(all, m)
	}
	return pickMember(s, ref, machine, all)
}

// pickMember chooses among those of one role by hostname, else by prefix.
func pickMember(s *state.Snapshot, ref, machine string, all []*typesv1.Member) (*typesv1.Member, error) {
	var named, begun []*typesv1.Member
	for _, m := range all {
		if hostnameOf(s, m) == machine {
			named = append(named, m)
		}
		if machine != "" && strings.HasPrefix(m.GetMachineId(), machine) {
			begun = append(begun, m)
		}
	}
	if len(named) == 0 {
		named = begun
	}
	switch len(named) {
	case 0:
		return nil, errs.New(errs.NotFound, "no such member: %s", ref)
	case 1:
		return named[0], nil
	}
	return nil, errs.New(errs.Invalid, "member %s is ambiguous: %d machines match; use the machine's id", ref, len(named))
}

// hostnameOf is what people call the machine of a process. One without an agent has no node.
func hostnameOf(s *state.Snapshot, m *typesv1.Member) string {
	return cmp.Or(state.Hostname(s.Node(m.GetMachineId())), m.GetHostname())
}
