package docker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/state"

	"github.com/shoalproject/shoal/cli/internal/table"
)

const maxReason = 30 // characters of a task's ERROR in a table, as docker has it

// ServiceRow is a line of `service ls`.
type ServiceRow struct {
	ID, Name, Mode, Replicas, Image, Ports string
}

// ServiceRowOf makes a line.
func ServiceRowOf(l *controlv1.ListedService, whole bool) ServiceRow {
	s := InForce(l.GetService(), l.GetInForce())
	return ServiceRow{
		ID: id(s.GetMeta().GetId(), whole), Name: s.GetSpec().GetAnnotations().GetName(), Mode: modeWord(s.GetSpec()),
		Replicas: replicas(s.GetSpec(), l.GetCounts()),
		Image:    cmp.Or(Image(s.GetSpec().GetTask().GetContainer().GetImage(), whole), Namespace(s.GetSpec().GetTask().GetContainer().GetAttach())), Ports: Ports(everywhere(s.GetEndpoint().GetPorts())),
	}
}

// everywhere are the ports that answer on every machine: host ports are the tasks'.
func everywhere(list []*typesv1.PortConfig) []*typesv1.PortConfig {
	return slices.DeleteFunc(slices.Clone(list), state.OnHost)
}

// NetworkRow is a line of `network ls`.
type NetworkRow struct {
	ID, Name, Driver, Scope, CreatedAt, Labels string
	Internal, IPv6, Encrypted, Attachable      bool
	// Usage is how many addresses are used and how many there are: "12/4093". Of two subnets IPv4's, which fills first.
	Usage string
}

// NetworkRowOf makes a line.
func NetworkRowOf(n *typesv1.Network, usage *controlv1.NetworkUsage, whole bool) NetworkRow {
	used := ""
	if u := usage.GetSubnets(); len(u) > 0 {
		used = fmt.Sprintf("%d/%d", u[0].GetUsed(), u[0].GetTotal())
	}
	return NetworkRow{
		Usage: used,
		ID:    id(n.GetMeta().GetId(), whole), Name: n.GetSpec().GetAnnotations().GetName(), Driver: n.GetSpec().GetDriver(),
		Scope: scope, CreatedAt: stamp(n.GetMeta().GetCreatedAt()), Labels: labels(n.GetSpec().GetAnnotations().GetLabels()),
		Internal: n.GetSpec().GetInternal(), IPv6: ipv6(n),
		Encrypted: n.GetSpec().GetEncrypted(), Attachable: n.GetSpec().GetAttachable(),
	}
}

// TaskRow is a line of `service ps`, `node ps` and `task ls`.
type TaskRow struct {
	ID, Name, Image, Node, DesiredState, CurrentState, Error, Ports string
}

// TaskRowsOf makes lines: the newest attempt of a slot first, those before it indented below.
func TaskRowsOf(tasks []*controlv1.ListedTask, now time.Time, whole bool) []TaskRow {
	var rows []TaskRow
	before := ""
	for _, l := range tasks {
		name := l.GetName()
		if name == before {
			name = ` \_ ` + name
		} else {
			before = name
		}
		rows = append(rows, taskRow(l, name, now, whole))
	}
	return rows
}

func taskRow(l *controlv1.ListedTask, name string, now time.Time, whole bool) TaskRow {
	t := l.GetTask()
	reason := l.GetReason()
	if !whole {
		reason = table.Ellipsis(reason, maxReason)
	}
	if reason != "" {
		reason = `"` + strings.ReplaceAll(reason, "\n", " ") + `"`
	}
	node := l.GetNodeHostname()
	if node == "" {
		node = id(t.GetDecided().GetNodeId(), whole)
	}
	return TaskRow{
		ID: id(t.GetMeta().GetId(), whole), Name: name, Image: Image(l.GetImage(), whole), Node: node,
		DesiredState: Title(TaskState(state.DesiredState(t))),
		CurrentState: fmt.Sprintf("%s %s ago", Title(TaskState(l.GetState())), strings.ToLower(units.HumanDuration(now.Sub(Since(l))))),
		Error:        reason, Ports: Ports(t.GetDecided().GetHostPorts()),
	}
}

// Since is when a task came into the state that it shows.
func Since(l *controlv1.ListedTask) time.Time {
	t := l.GetTask()
	if at := t.GetObserved().GetAt(); at != nil && l.GetState() == t.GetObserved().GetState() {
		return at.AsTime()
	}
	if since := t.GetDecided().GetSince(); since != nil {
		return since.AsTime()
	}
	if at := t.GetMeta().GetUpdatedAt(); at != nil {
		return at.AsTime()
	}
	return t.GetMeta().GetCreatedAt().AsTime()
}

// NodeRow is a line of `node ls`.
type NodeRow struct {
	ID, Hostname, Status, Availability, ManagerStatus, EngineVersion string
	Self                                                             bool
}

// Marked is the id with a star on this machine.
func (r NodeRow) Marked() string {
	if r.Self {
		return r.ID + " *"
	}
	return r.ID
}

// NodeRowOf makes a line; self is this machine's id.
func NodeRowOf(l *controlv1.ListedNode, self string) NodeRow {
	n := l.GetNode()
	version, _, _ := strings.Cut(n.GetStatus().GetDescription().GetVersion(), " ")
	return NodeRow{
		ID: n.GetMeta().GetId(), Self: n.GetMeta().GetId() == self, Hostname: Hostname(n),
		Status:        Title(nodeState(n.GetStatus().GetState())),
		Availability:  Title(word(n.GetSpec().GetAvailability().String(), "AVAILABILITY_")),
		ManagerStatus: managerStatus(l.GetManagerStatus()), EngineVersion: version,
	}
}

// Hostname is what people call a machine.
func Hostname(n *typesv1.Node) string {
	if h := n.GetStatus().GetDescription().GetHostname(); h != "" {
		return h
	}
	return n.GetIdentity().GetHostname()
}

func nodeState(s typesv1.NodeState) string {
	if s == typesv1.NodeState_NODE_STATE_UNSPECIFIED {
		return "unknown" // no session yet
	}
	return word(s.String(), "NODE_STATE_")
}

func managerStatus(s controlv1.ManagerStatus) string {
	if s == controlv1.ManagerStatus_MANAGER_STATUS_UNSPECIFIED {
		return ""
	}
	return Title(word(s.String(), "MANAGER_STATUS_"))
}

func id(s string, whole bool) string {
	if whole {
		return s
	}
	return table.ShortID(s)
}
