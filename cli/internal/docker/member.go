package docker

import (
	"fmt"
	"slices"
	"strings"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"

	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/table"
)

// MemberRow is a line of `member ls`.
type MemberRow struct {
	ID, Name, Role, Machine, Hostname, Address, Version, Health, Duty, Lease, Raft string
	Load                                                                           uint64
	Drain                                                                          bool
}

// MemberRowOf makes a line.
func MemberRowOf(l *controlv1.ListedMember, whole bool) MemberRow {
	m := l.GetMember()
	version, _, _ := strings.Cut(m.GetVersion(), " ")
	if !whole {
		version = table.Ellipsis(version, maxVersion)
	}
	r := MemberRow{
		ID: m.GetMeta().GetId(), Role: identity.RoleName(m.GetRole()), Machine: m.GetMachineId(), Hostname: l.GetHostname(),
		Version: version, Load: m.GetStatus().GetLoad(), Drain: m.GetSpec().GetDrain(), Health: memberHealth(l, whole),
		Lease: lease(l), Raft: raft(l),
	}
	r.Name = r.Role + "/" + id(r.Machine, whole)
	if l.GetHostname() != "" && !whole {
		r.Name = r.Role + "/" + l.GetHostname()
	}
	if len(m.GetAddresses()) > 0 {
		r.Address = m.GetAddresses()[0]
	}
	r.Duty = strings.Join(slices.DeleteFunc([]string{r.Raft, r.Lease}, func(s string) bool { return s == "" }), ", ")
	return r
}

// maxVersion cuts the name of a build between two releases.
const maxVersion = 24

func memberHealth(l *controlv1.ListedMember, whole bool) string {
	status := l.GetMember().GetStatus()
	text := "Unknown" // it has not said yet
	switch l.GetHealth() {
	case controlv1.MemberHealth_MEMBER_HEALTH_WELL:
		text = "Well"
	case controlv1.MemberHealth_MEMBER_HEALTH_WAITS:
		text = "Waits for " + strings.Join(status.GetWaits(), ", ")
	case controlv1.MemberHealth_MEMBER_HEALTH_SILENT:
		text = "Silent"
	case controlv1.MemberHealth_MEMBER_HEALTH_UNSPECIFIED:
	}
	if !whole {
		text = table.Ellipsis(text, maxReason)
	}
	switch {
	case status.GetDrained() && l.GetMember().GetSpec().GetDrain():
		text += ", drained"
	case l.GetMember().GetSpec().GetDrain():
		text += ", draining"
	}
	return text
}

func lease(l *controlv1.ListedMember) string {
	if l.GetLease() == nil {
		return ""
	}
	name := l.GetLease().GetMeta().GetId()
	if name == l.GetMember().GetMeta().GetId() || name == identity.RoleName(l.GetMember().GetRole()) {
		return fmt.Sprintf("lease #%d", l.GetLease().GetNumber())
	}
	return fmt.Sprintf("lease %s #%d", name, l.GetLease().GetNumber())
}

func raft(l *controlv1.ListedMember) string {
	switch r := l.GetMember().GetRaft(); {
	case r == nil:
		return ""
	case l.GetLeader():
		return "leader"
	case r.GetVoter():
		return "voter"
	}
	return "learner"
}

// Member is what `member inspect` shows.
type Member struct {
	ID           string
	Version      Version
	CreatedAt    string
	UpdatedAt    string
	Role         string
	MachineID    string
	Hostname     string
	Addresses    []string
	Build        string
	FeatureLevel uint32
	Weight       uint32
	Spec         MemberSpec
	Status       MemberStatus
	Lease        *Lease `json:",omitempty"`
	Raft         *Raft  `json:",omitempty"`
}

// MemberSpec is what is wanted of a process.
type MemberSpec struct{ Drain bool }

// MemberStatus is how a process is.
type MemberStatus struct {
	Health  string
	Waits   []string `json:",omitempty"`
	Load    uint64
	Drained bool
}

// Lease is a duty that a process holds.
type Lease struct {
	Name   string
	Number uint64
}

// Raft is a store's place among the stores.
type Raft struct {
	ID                     uint64
	Leader, Voter, Learner bool
}

// MemberOf translates a process.
func MemberOf(l *controlv1.ListedMember) Member {
	m := l.GetMember()
	out := Member{
		ID: m.GetMeta().GetId(), Version: Version{m.GetMeta().GetRevision()},
		CreatedAt: stamp(m.GetMeta().GetCreatedAt()), UpdatedAt: stamp(m.GetMeta().GetUpdatedAt()),
		Role: identity.RoleName(m.GetRole()), MachineID: m.GetMachineId(), Hostname: l.GetHostname(), Addresses: m.GetAddresses(),
		Build: m.GetVersion(), FeatureLevel: m.GetFeatureLevel(), Weight: m.GetWeight(), Spec: MemberSpec{Drain: m.GetSpec().GetDrain()},
		Status: MemberStatus{
			Health: word(l.GetHealth().String(), "MEMBER_HEALTH_"), Waits: m.GetStatus().GetWaits(), Load: m.GetStatus().GetLoad(),
			Drained: m.GetStatus().GetDrained(),
		},
	}
	if held := l.GetLease(); held != nil {
		out.Lease = &Lease{Name: held.GetMeta().GetId(), Number: held.GetNumber()}
	}
	if r := m.GetRaft(); r != nil {
		out.Raft = &Raft{ID: r.GetId(), Leader: l.GetLeader(), Voter: r.GetVoter(), Learner: r.GetLearner()}
	}
	return out
}
