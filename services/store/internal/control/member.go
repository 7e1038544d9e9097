package control

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
	"github.com/shoalproject/shoal/services/store/internal/listing"
)

// silentAfter is the age of a process's own words at which it counts as silent. They are renewed at a third of it.
const silentAfter = 45 * time.Second

type members struct {
	controlv1.UnimplementedMemberServiceServer
	*API
}

// GetMember implements MemberService. Which stores can be reached is known to the leader alone, so it answers.
func (s members) GetMember(ctx context.Context, req *controlv1.GetMemberRequest) (*controlv1.GetMemberResponse, error) {
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, _ rpc.Caller) (*controlv1.GetMemberResponse, error) {
			snap, err := s.read(ctx)
			if err != nil {
				return nil, err
			}
			m, err := findMember(snap, req.GetMember())
			if err != nil {
				return nil, err
			}
			return &controlv1.GetMemberResponse{Member: s.listed(snap, m), Version: desk.VersionOf(snap, m.GetMeta())}, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.GetMemberResponse, error) {
			return controlv1.NewMemberServiceClient(conn).GetMember(ctx, req)
		})
}

// ListMembers implements MemberService.
func (s members) ListMembers(ctx context.Context, req *controlv1.ListMembersRequest) (*controlv1.ListMembersResponse, error) {
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, _ rpc.Caller) (*controlv1.ListMembersResponse, error) {
			return s.list(ctx, req)
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.ListMembersResponse, error) {
			return controlv1.NewMemberServiceClient(conn).ListMembers(ctx, req)
		})
}

func (s members) list(ctx context.Context, req *controlv1.ListMembersRequest) (*controlv1.ListMembersResponse, error) {
	const what = "list members"
	f, err := listing.Parse(what, req.GetFilters(), "role", "node", "health", "drain")
	if err != nil {
		return nil, err
	}
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	var rows []listing.Row[*controlv1.ListedMember]
	for m := range allMembers(snap) {
		l := s.listed(snap, m)
		if f.Equal("role", identity.RoleName(m.GetRole())) && f.Equal("node", m.GetMachineId(), l.GetHostname()) &&
			f.Equal("health", strings.TrimPrefix(l.GetHealth().String(), "MEMBER_HEALTH_")) &&
			f.Equal("drain", fmt.Sprint(m.GetSpec().GetDrain())) {
			rows = append(rows, listing.Row[*controlv1.ListedMember]{Key: fmt.Sprintf("%04d%s%s", m.GetRole(), listing.Sep, m.GetMachineId()), Value: l})
		}
	}
	resp := &controlv1.ListMembersResponse{}
	resp.Members, resp.NextPageToken, err = listing.Page(what, rows, req.GetPageSize(), req.GetPageToken(), listing.SizeOf)
	return resp, err
}

// allMembers walks the control processes, which speak for themselves, then those of machines, of which the machine's
// session and its CA speak.
func allMembers(snap *state.Snapshot) iter.Seq[*typesv1.Member] {
	return func(yield func(*typesv1.Member) bool) {
		for m := range snap.Members() {
			if !yield(m) {
				return
			}
		}
		for n := range snap.Nodes() {
			for _, r := range []authzv1.Role{authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY} {
				if m := nodeSide(snap, n, r); m != nil && !yield(m) {
					return
				}
			}
		}
	}
}

// nodeSide is what is known of a machine's own process; nil if it has none of that role, or it speaks for itself.
func nodeSide(snap *state.Snapshot, n *typesv1.Node, role authzv1.Role) *typesv1.Member {
	id := identity.ID{Role: role, Name: n.GetMeta().GetId()}
	if !slices.Contains(n.GetIdentity().GetRoles(), role) || snap.Member(id.Member()) != nil {
		return nil
	}
	meta := proto.CloneOf(n.GetMeta())
	meta.Id = id.Member()
	m := &typesv1.Member{
		Meta: meta, Role: role, MachineId: id.Name, Version: n.GetStatus().GetDescription().GetVersion(),
		FeatureLevel: n.GetStatus().GetDescription().GetFeatureLevel(), Addresses: n.GetStatus().GetAddresses(),
	}
	if why := n.GetStatus().GetMessage(); why != "" {
		m.Status = &typesv1.MemberStatus{Waits: []string{"node: " + why}}
	}
	return m
}

// listed is the process with what a person wants to see beside it.
func (s members) listed(snap *state.Snapshot, m *typesv1.Member) *controlv1.ListedMember {
	v := s.cfg.Node.View()
	out := &controlv1.ListedMember{
		Member: m, Hostname: hostnameOf(snap, m), Lease: leaseOf(snap, m), Health: s.health(snap, m),
	}
	if p := v.PeerOn(m.GetMachineId()); p != nil && m.GetRole() == authzv1.Role_ROLE_STORE {
		out.Leader = p.GetRaftId() == v.Leader
	}
	return out
}

// leaseOf is the lease that a process holds, as far as the store knows; nil if it holds none.
func leaseOf(snap *state.Snapshot, m *typesv1.Member) *typesv1.Lease {
	for l := range snap.Leases() {
		if l.GetHolder() == m.GetMeta().GetId() {
			return l
		}
	}
	return nil
}

// lapsed is how many lives of its lease a holder may be late before it counts as silent: an election is no silence.
const lapsed = 3

// health is how a process is. Who has a better witness than its own words is judged by that: a store by the leader, a
// machine's process by its session, a holder by its lease.
func (s members) health(snap *state.Snapshot, m *typesv1.Member) controlv1.MemberHealth {
	now := s.cfg.Node.ClusterTime()
	switch m.GetRole() {
	case authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY:
		return nodeHealth(snap.Node(m.GetMachineId()))
	case authzv1.Role_ROLE_STORE:
		v := s.cfg.Node.View()
		if p := v.PeerOn(m.GetMachineId()); p != nil && p.GetRaftId() != v.Leader && !v.Heard[p.GetRaftId()] {
			return controlv1.MemberHealth_MEMBER_HEALTH_SILENT
		}
	default:
	}
	switch status := m.GetStatus(); {
	case status == nil:
		return controlv1.MemberHealth_MEMBER_HEALTH_UNSPECIFIED
	case now.Sub(m.GetMeta().GetUpdatedAt().AsTime()) > silentAfter, overdue(leaseOf(snap, m), now):
		return controlv1.MemberHealth_MEMBER_HEALTH_SILENT
	case len(status.GetWaits()) > 0:
		return controlv1.MemberHealth_MEMBER_HEALTH_WAITS
	}
	return controlv1.MemberHealth_MEMBER_HEALTH_WELL
}

func overdue(l *typesv1.Lease, now time.Time) bool {
	return l != nil && now.Sub(l.GetMeta().GetUpdatedAt().AsTime()) > lapsed*l.GetTtl().AsDuration()
}

func nodeHealth(n *typesv1.Node) controlv1.MemberHealth {
	switch n.GetStatus().GetState() {
	case typesv1.NodeState_NODE_STATE_READY:
		return controlv1.MemberHealth_MEMBER_HEALTH_WELL
	case typesv1.NodeState_NODE_STATE_SUSPECT, typesv1.NodeState_NODE_STATE_DOWN:
		return controlv1.MemberHealth_MEMBER_HEALTH_SILENT
	default:
		return controlv1.MemberHealth_MEMBER_HEALTH_UNSPECIFIED
	}
}
