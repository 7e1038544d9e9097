package docker

import (
	"encoding/base64"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/state"
)

// scope is Docker's word for networks that all machines of a cluster share.
const scope = "swarm"

// Node is what `node inspect` shows.
type Node struct {
	ID            string
	Version       Version
	CreatedAt     string
	UpdatedAt     string
	Spec          NodeSpec
	Description   NodeDescription
	Status        NodeStatus
	ManagerStatus *ManagerStatus `json:",omitempty"`
}

// NodeSpec is what is wanted of a machine.
type NodeSpec struct {
	Named
	Role         string
	Availability string
	Taints       []Taint `json:",omitempty"`
}

// NodeDescription is what a machine is.
type NodeDescription struct {
	Hostname  string
	Platform  Platform
	Resources Amount
	Engine    Engine
	Kernel    string `json:",omitempty"`
	Disks     []Disk `json:",omitempty"`
	// ImagesRemoved and ImagesRemovedBytes are of unused ones, because the disk ran full.
	ImagesRemoved      uint64   `json:",omitempty"`
	ImagesRemovedBytes int64    `json:",omitempty"`
	Features           []string `json:",omitempty"`
	// Dataplane is what carries published ports, kernel or userspace; DataplaneReason says why it is not the kernel.
	Dataplane       string `json:",omitempty"`
	DataplaneReason string `json:",omitempty"`
	// Tunnel is what encrypts traffic to other machines, kernel or userspace, or empty: nothing can. TunnelReason says why, or why it is
	// not the kernel. TunnelKeys are the public halves of the machine's keys, as WireGuard writes them.
	Tunnel       string   `json:",omitempty"`
	TunnelReason string   `json:",omitempty"`
	TunnelKeys   []string `json:",omitempty"`
	// UserNamespaces says whether containers can have user namespaces of their own, UserNamespacesReason why not.
	UserNamespaces       bool   `json:",omitempty"`
	UserNamespacesReason string `json:",omitempty"`
}

// Disk is how full a file system is that the agent depends on, in bytes.
type Disk struct {
	Name        string
	Total, Free int64
}

// Engine is what runs containers.
type Engine struct {
	EngineVersion, RuntimeVersion string
	Labels                        map[string]string `json:",omitempty"`
}

// NodeStatus is what is seen of a machine.
type NodeStatus struct {
	State   string
	Message string `json:",omitempty"`
	Since   string `json:",omitempty"`
	Addr    string
}

// ManagerStatus is a machine's part in Raft.
type ManagerStatus struct {
	Leader       bool
	Reachability string
	Voter        bool
}

func disksOf(d *typesv1.NodeDescription) (out []Disk) {
	for _, u := range d.GetDisks() {
		out = append(out, Disk{Name: u.GetName(), Total: u.GetBytes(), Free: u.GetFreeBytes()})
	}
	return out
}

func keysOf(d *typesv1.NodeDescription) (out []string) {
	for _, k := range d.GetTunnelKeys() {
		out = append(out, base64.StdEncoding.EncodeToString(k.GetPublicKey()))
	}
	return out
}

// NodeOf translates a machine.
func NodeOf(l *controlv1.ListedNode) Node {
	n := l.GetNode()
	d := n.GetStatus().GetDescription()
	out := Node{
		ID: n.GetMeta().GetId(), Version: Version{n.GetMeta().GetRevision()},
		CreatedAt: stamp(n.GetMeta().GetCreatedAt()), UpdatedAt: stamp(n.GetMeta().GetUpdatedAt()),
		Spec: NodeSpec{
			Named: named(n.GetSpec().GetAnnotations()), Role: word(n.GetSpec().GetRole().String(), "NODE_ROLE_"),
			Availability: word(n.GetSpec().GetAvailability().String(), "AVAILABILITY_"),
			Taints:       taintsOf(n.GetSpec().GetTaints()),
		},
		Description: NodeDescription{
			Hostname: Hostname(n), Platform: Platform{Architecture: d.GetPlatform().GetArchitecture(), OS: d.GetPlatform().GetOs()},
			Resources: Amount{NanoCPUs: d.GetNanoCpus(), MemoryBytes: d.GetMemoryBytes(), Pids: d.GetPids(), DiskBytes: d.GetDiskBytes(),
				GenericResources: genericOf(d.GetGeneric())},
			Engine: Engine{EngineVersion: d.GetVersion(), RuntimeVersion: d.GetRuntimeVersion(), Labels: d.GetLabels()},
			Kernel: d.GetKernel(), Features: d.GetFeatures(), Disks: disksOf(d),
			ImagesRemoved: d.GetImagesRemoved(), ImagesRemovedBytes: d.GetImagesRemovedBytes(),
			Dataplane: option(d.GetDataplane(), "DATAPLANE_"), DataplaneReason: d.GetDataplaneReason(),
			Tunnel: option(d.GetTunnel(), "DATAPLANE_"), TunnelReason: d.GetTunnelReason(), TunnelKeys: keysOf(d),
			UserNamespaces: d.GetUserNamespaces(), UserNamespacesReason: d.GetUserNamespacesReason(),
		},
		Status: NodeStatus{State: nodeState(n.GetStatus().GetState()), Message: n.GetStatus().GetMessage(), Since: stamp(n.GetStatus().GetSince())},
	}
	if a := n.GetStatus().GetAddresses(); len(a) > 0 {
		out.Status.Addr = a[0]
	}
	if m := l.GetManagerStatus(); m != controlv1.ManagerStatus_MANAGER_STATUS_UNSPECIFIED {
		out.ManagerStatus = &ManagerStatus{Leader: m == controlv1.ManagerStatus_MANAGER_STATUS_LEADER, Reachability: "reachable", Voter: l.GetVoter()}
		if m == controlv1.ManagerStatus_MANAGER_STATUS_UNREACHABLE {
			out.ManagerStatus.Reachability = "unreachable"
		}
	}
	return out
}

// Network is what `network inspect` shows.
type Network struct {
	Name       string
	ID         string `json:"Id"`
	Created    string
	Scope      string
	Driver     string
	EnableIPv6 bool
	IPAM       IPAM
	Internal   bool
	Attachable bool
	Options    map[string]string
	Labels     map[string]string
	// Guests are containers of other tools, which Docker has among Containers.
	Guests []Guest `json:",omitempty"`
}

// IPAM is what the cluster gave a network.
type IPAM struct {
	Driver string
	Config []Subnet
}

// Subnet is one range, and how full it is.
type Subnet struct {
	Subnet             string
	IPRange            string            `json:",omitempty"`
	Gateway            string            `json:",omitempty"`
	AuxiliaryAddresses map[string]string `json:",omitempty"`
	Used, Free         uint64
}

// NetworkOf translates a network.
func NetworkOf(n *typesv1.Network, usage []*controlv1.SubnetUsage, guests []*controlv1.NetworkGuest) Network {
	name := named(n.GetSpec().GetAnnotations())
	out := Network{
		Name: name.Name, ID: n.GetMeta().GetId(), Created: stamp(n.GetMeta().GetCreatedAt()), Scope: scope,
		Driver: n.GetSpec().GetDriver(), EnableIPv6: ipv6(n), IPAM: IPAM{Driver: "default", Config: []Subnet{}},
		Internal: n.GetSpec().GetInternal(), Attachable: n.GetSpec().GetAttachable(), Labels: name.Labels, Guests: GuestsOf(guests),
		Options: map[string]string{"com.docker.network.driver.overlay.vxlanid_list": strconv.FormatUint(uint64(n.GetIpam().GetVni()), 10)},
	}
	if mtu := n.GetSpec().GetMtu(); mtu != 0 {
		out.Options["com.docker.network.driver.mtu"] = strconv.FormatUint(uint64(mtu), 10)
	}
	if n.GetSpec().GetEncrypted() {
		out.Options["encrypted"] = "true"
	}
	for _, text := range n.GetIpam().GetSubnets() {
		s := Subnet{Subnet: text, IPRange: within(text, n.GetIpam().GetRanges()), Gateway: within(text, n.GetSpec().GetGateways())}
		for name, a := range n.GetSpec().GetAuxAddresses() {
			if within(text, []string{a}) != "" {
				if s.AuxiliaryAddresses == nil {
					s.AuxiliaryAddresses = map[string]string{}
				}
				s.AuxiliaryAddresses[name] = a
			}
		}
		for _, u := range usage {
			if u.GetSubnet() == text {
				s.Used, s.Free = u.GetUsed(), u.GetTotal()-min(u.GetTotal(), u.GetUsed())
			}
		}
		out.IPAM.Config = append(out.IPAM.Config, s)
	}
	return out
}

// within is the first of the addresses or ranges that is in the subnet.
func within(subnet string, list []string) string {
	p, err := netip.ParsePrefix(subnet)
	if err != nil {
		return ""
	}
	for _, text := range list {
		address, _, _ := strings.Cut(text, "/")
		if a, err := netip.ParseAddr(address); err == nil && p.Contains(a) {
			return text
		}
	}
	return ""
}

func ipv6(n *typesv1.Network) bool {
	return slices.ContainsFunc(n.GetIpam().GetSubnets(), func(s string) bool { return strings.Contains(s, ":") })
}

// Task is what `task inspect` shows.
type Task struct {
	ID                  string
	Version             Version
	CreatedAt           string
	UpdatedAt           string
	Name                string
	Spec                TaskSpec
	SpecVersion         uint64
	ServiceID           string
	Slot                uint64
	NodeID              string
	NodeHostname        string
	Status              TaskStatus
	DesiredState        string
	NetworksAttachments []Attachment `json:",omitempty"`
}

// TaskStatus is what is seen of a task.
type TaskStatus struct {
	Timestamp       string
	State           string
	Message         string `json:",omitempty"`
	Err             string `json:",omitempty"`
	Ready           bool
	ContainerStatus *ContainerStatus `json:",omitempty"`
}

// ContainerStatus is the container on its machine: what containerd's own tools ask for.
type ContainerStatus struct {
	ContainerID string
	PID         int64
	ExitCode    *int32 `json:",omitempty"`
	// Health is starting, healthy or unhealthy; empty without a health check.
	Health string `json:",omitempty"`
}

// Attachment is a task's place on a network.
type Attachment struct {
	Network   AttachedNetwork
	Addresses []string
}

// AttachedNetwork names a network; an empty id is the machine network.
type AttachedNetwork struct{ ID string }

// TaskOf translates a task.
func TaskOf(l *controlv1.ListedTask) Task {
	t := l.GetTask()
	o := t.GetObserved()
	out := Task{
		ID: t.GetMeta().GetId(), Version: Version{t.GetMeta().GetRevision()},
		CreatedAt: stamp(t.GetMeta().GetCreatedAt()), UpdatedAt: stamp(t.GetMeta().GetUpdatedAt()),
		Name: l.GetName(), Spec: TaskSpecOf(l.GetSpec()), SpecVersion: t.GetSpecVersion(), ServiceID: t.GetServiceId(),
		Slot: t.GetDecided().GetSlot(), NodeID: t.GetDecided().GetNodeId(), NodeHostname: l.GetNodeHostname(),
		Status: TaskStatus{
			Timestamp: Since(l).UTC().Format(timeFormat), State: TaskState(l.GetState()), Message: o.GetMessage(), Err: l.GetReason(), Ready: o.GetReady(),
		},
		DesiredState: TaskState(state.DesiredState(t)),
	}
	if o.GetContainerId() != "" {
		out.Status.ContainerStatus = &ContainerStatus{ContainerID: o.GetContainerId(), PID: o.GetPid(), ExitCode: o.ExitCode}
		if o.GetHealth() != typesv1.HealthState_HEALTH_STATE_UNSPECIFIED {
			out.Status.ContainerStatus.Health = word(o.GetHealth().String(), "HEALTH_STATE_")
		}
	}
	for _, a := range t.GetDecided().GetAddresses() {
		out.NetworksAttachments = append(out.NetworksAttachments, Attachment{Network: AttachedNetwork{a.GetNetworkId()}, Addresses: a.GetAddresses()})
	}
	return out
}

const timeFormat = "2006-01-02T15:04:05.999999999Z07:00"

// labels is the Labels field of a row: "a=1,b=2".
func labels(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ",")
}
