package docker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/state"
)

// Service is what `service inspect` shows.
type Service struct {
	ID           string
	Version      Version
	CreatedAt    string
	UpdatedAt    string
	Spec         ServiceSpec
	Endpoint     Endpoint
	UpdateStatus *UpdateStatus `json:",omitempty"`
	JobStatus    *JobStatus    `json:",omitempty"`
	// RebalanceStatus tells of the last time that a person had the tasks evened out.
	RebalanceStatus *RebalanceStatus `json:",omitempty"`
	Scale           *Scale           `json:",omitempty"`
	Load            *Load            `json:",omitempty"`
	// SpecVersion counts the changes of the task template; SpecHistory are the earlier ones that are kept.
	SpecVersion uint64
	SpecHistory []SpecRecord `json:",omitempty"`
}

// ServiceSpec is what is wanted.
type ServiceSpec struct {
	Named
	TaskTemplate   TaskSpec
	Mode           Mode
	UpdateConfig   *UpdateConfig `json:",omitempty"`
	RollbackConfig *UpdateConfig `json:",omitempty"`
	EndpointSpec   EndpointSpec
	Job            *Job    `json:",omitempty"`
	MaxUnavailable *uint64 `json:",omitempty"`
	HoldUpdate     bool    `json:",omitempty"`
	// DependsOn are the services that must be healthy before its first tasks start.
	DependsOn []string `json:",omitempty"`
	Priority  int32    `json:",omitempty"`
	// Rebalance says that its tasks are kept evenly placed all the time.
	Rebalance bool `json:",omitempty"`
	// Autoscale lets the number of tasks follow their load.
	Autoscale *Autoscale `json:",omitempty"`
}

// TaskSpec is what one task is.
type TaskSpec struct {
	ContainerSpec ContainerSpec
	Resources     Resources
	RestartPolicy *RestartPolicy `json:",omitempty"`
	Placement     Placement
	Networks      []NetworkTarget `json:",omitempty"`
	ForceUpdate   uint64
	Runtime       string
	// Namespace is that of a container of another tool.
	Namespace string `json:",omitempty"`
}

// Resources bound and reserve.
type Resources struct {
	Limits           *Amount `json:",omitempty"`
	Reservations     *Amount `json:",omitempty"`
	SwapBytes        *int64  `json:",omitempty"`
	MemorySwappiness *int64  `json:",omitempty"`
}

// Amount is an amount of resources.
type Amount struct {
	NanoCPUs    int64 `json:",omitempty"`
	MemoryBytes int64 `json:",omitempty"`
	Pids        int64 `json:",omitempty"`
	// DiskBytes is what Docker does not have.
	DiskBytes int64 `json:",omitempty"`
	// GenericResources are counted or named pieces, in Docker's two shapes.
	GenericResources []GenericResource `json:",omitempty"`
}

// RestartPolicy says when a task is replaced.
type RestartPolicy struct {
	Condition   string
	Delay       *int64 `json:",omitempty"`
	MaxDelay    *int64 `json:",omitempty"`
	MaxAttempts uint64
	Window      *int64 `json:",omitempty"`
}

// NetworkTarget is a network that a task is on.
type NetworkTarget struct {
	Target  string
	Aliases []string `json:",omitempty"`
	// Addresses are those of its tasks, by slot.
	Addresses []string `json:",omitempty"`
}

// EndpointSpec says how a service is reached.
type EndpointSpec struct {
	Mode  string
	Ports []Port `json:",omitempty"`
	// AllowFrom is who may call its tasks. None: anyone.
	AllowFrom []string `json:",omitempty"`
}

// Port is a published port.
type Port struct {
	Protocol      string
	TargetPort    uint32
	PublishedPort uint32 `json:",omitempty"`
	PublishMode   string
	// What Docker does not have. Empty: the default.
	HostIP          string `json:",omitempty"`
	Dataplane       string `json:",omitempty"`
	TrafficPolicy   string `json:",omitempty"`
	SessionAffinity string `json:",omitempty"`
	ProxyProtocol   string `json:",omitempty"`
}

// Endpoint is what the cluster gave a service.
type Endpoint struct {
	Spec       EndpointSpec
	Ports      []Port      `json:",omitempty"`
	VirtualIPs []VirtualIP `json:",omitempty"`
}

// VirtualIP is an address on a network.
type VirtualIP struct{ NetworkID, Addr string }

// InForce is a service as its tasks are: with the task spec that a failed update has gone back to by itself, if there is one.
func InForce(s *typesv1.Service, rolledBack *typesv1.TaskSpec) *typesv1.Service {
	if rolledBack == nil {
		return s
	}
	s = proto.CloneOf(s)
	s.Spec.Task = rolledBack
	return s
}

// ServiceOf translates a service.
func ServiceOf(s *typesv1.Service) Service {
	out := Service{
		ID: s.GetMeta().GetId(), Version: Version{s.GetMeta().GetRevision()},
		CreatedAt: stamp(s.GetMeta().GetCreatedAt()), UpdatedAt: stamp(s.GetMeta().GetUpdatedAt()),
		Spec: specOf(s.GetSpec()),
		Endpoint: Endpoint{
			Spec: endpointSpec(s.GetSpec().GetEndpoint()), Ports: ports(s.GetEndpoint().GetPorts()),
		},
	}
	for _, v := range s.GetEndpoint().GetVirtualIps() {
		for _, a := range v.GetAddresses() {
			out.Endpoint.VirtualIPs = append(out.Endpoint.VirtualIPs, VirtualIP{NetworkID: v.GetNetworkId(), Addr: a})
		}
	}
	out.UpdateStatus, out.JobStatus, out.Scale = updateStatusOf(s.GetUpdateStatus()), jobStatusOf(s), scaleOf(s.GetScale())
	out.RebalanceStatus = rebalanceStatusOf(s.GetRebalanceStatus())
	out.SpecVersion = s.GetSpecVersion()
	for _, r := range s.GetSpecHistory() {
		out.SpecHistory = append(out.SpecHistory, SpecRecord{Version: r.GetVersion(), TaskTemplate: TaskSpecOf(r.GetTask())})
	}
	return out
}

func specOf(s *typesv1.ServiceSpec) ServiceSpec {
	return ServiceSpec{
		Named: named(s.GetAnnotations()), TaskTemplate: TaskSpecOf(s.GetTask()), Mode: modeOf(s),
		EndpointSpec: endpointSpec(s.GetEndpoint()),
		UpdateConfig: updateConfigOf(s.GetUpdate()), RollbackConfig: updateConfigOf(s.GetRollback()),
		Job: jobOf(s.GetJob()), MaxUnavailable: s.MaxUnavailable, HoldUpdate: s.GetHoldUpdate(),
		DependsOn: s.GetDependsOn(), Priority: s.GetPriority(), Rebalance: s.GetRebalance().GetAlways(),
		Autoscale: autoscaleOf(s.GetAutoscale()),
	}
}

// TaskSpecOf translates what one task is.
func TaskSpecOf(t *typesv1.TaskSpec) TaskSpec {
	c := t.GetContainer()
	out := TaskSpec{
		ContainerSpec: containerOf(c),
		Resources:     resourcesOf(t.GetResources()),
		ForceUpdate:   t.GetForceUpdate(), Runtime: "container",
	}
	if at := c.GetAttach(); at != nil {
		out.Runtime, out.Namespace = "attachment", Namespace(at)
	}
	if r := t.GetRestart(); r != nil {
		out.RestartPolicy = &RestartPolicy{Condition: "any", Delay: nanos(r.GetDelay()), MaxDelay: nanos(r.GetMaxDelay()), MaxAttempts: r.GetMaxAttempts(), Window: nanos(r.GetWindow())}
		if r.GetCondition() != typesv1.RestartCondition_RESTART_CONDITION_UNSPECIFIED {
			out.RestartPolicy.Condition = word(r.GetCondition().String(), "RESTART_CONDITION_")
		}
	}
	out.Placement = placementOf(t.GetPlacement())
	if t.GetContainer().GetPrivileges().GetHostNetwork() {
		out.Networks = append(out.Networks, NetworkTarget{Target: "host"})
	}
	for _, n := range t.GetNetworks() {
		out.Networks = append(out.Networks, NetworkTarget{Target: n.GetTarget(), Aliases: n.GetAliases(), Addresses: n.GetAddresses()})
	}
	return out
}

func resourcesOf(r *typesv1.ResourceRequirements) Resources {
	out := Resources{Limits: amount(r.GetLimits()), Reservations: amount(r.GetReservations())}
	if r != nil {
		out.SwapBytes, out.MemorySwappiness = r.SwapBytes, r.MemorySwappiness
	}
	return out
}

func amount(r *typesv1.Resources) *Amount {
	a := &Amount{NanoCPUs: r.GetNanoCpus(), MemoryBytes: r.GetMemoryBytes(), Pids: r.GetPids(), DiskBytes: r.GetDiskBytes(), GenericResources: genericOf(r.GetGeneric())}
	if a.NanoCPUs == 0 && a.MemoryBytes == 0 && a.Pids == 0 && a.DiskBytes == 0 && len(a.GenericResources) == 0 {
		return nil
	}
	return a
}

func ports(list []*typesv1.PortConfig) []Port {
	var out []Port
	for _, p := range list {
		mode := "ingress"
		if state.OnHost(p) {
			mode = "host"
		}
		out = append(out, Port{
			Protocol: state.ProtocolName(p.GetProtocol()), TargetPort: p.GetTargetPort(), PublishedPort: p.GetPublishedPort(), PublishMode: mode,
			HostIP: p.GetHostIp(), Dataplane: option(p.GetDataplane(), "DATAPLANE_"),
			TrafficPolicy: option(p.GetTrafficPolicy(), "TRAFFIC_POLICY_"), SessionAffinity: option(p.GetSessionAffinity(), "SESSION_AFFINITY_"),
			ProxyProtocol: proxyProtocol(p),
		})
	}
	return out
}

// proxyProtocol is the version that a port speaks, as the command line writes it.
func proxyProtocol(p *typesv1.PortConfig) string {
	if p.GetProxyProtocol() {
		return "v2"
	}
	return ""
}

// option is an enum's value as the command line writes it; empty for the unspecified.
func option(v interface {
	protoreflect.Enum
	fmt.Stringer
}, prefix string,
) string {
	if v.Number() == 0 {
		return ""
	}
	return word(v.String(), prefix)
}

// Ports is the PORTS column: "*:30000->8000/tcp", neighbours joined into ranges.
func Ports(list []*typesv1.PortConfig) string {
	type span struct {
		protocol             string
		from, to, first, end uint32
	}
	sorted := slices.SortedFunc(slices.Values(list), func(a, b *typesv1.PortConfig) int {
		return cmp.Or(strings.Compare(state.ProtocolName(a.GetProtocol()), state.ProtocolName(b.GetProtocol())), cmp.Compare(a.GetPublishedPort(), b.GetPublishedPort()))
	})
	var spans []span
	for _, p := range sorted {
		kind, published, target := state.ProtocolName(p.GetProtocol()), p.GetPublishedPort(), p.GetTargetPort()
		if n := len(spans); n > 0 && spans[n-1].protocol == kind && spans[n-1].to+1 == published && spans[n-1].end+1 == target {
			spans[n-1].to, spans[n-1].end = published, target
			continue
		}
		spans = append(spans, span{kind, published, published, target, target})
	}
	var out []string
	for _, s := range spans {
		out = append(out, fmt.Sprintf("*:%s->%s/%s", numbers(s.from, s.to), numbers(s.first, s.end), s.protocol))
	}
	return strings.Join(out, ", ")
}

func numbers(from, to uint32) string {
	if from == to {
		return fmt.Sprint(from)
	}
	return fmt.Sprintf("%d-%d", from, to)
}

func endpointSpec(e *typesv1.EndpointSpec) EndpointSpec {
	return EndpointSpec{Mode: endpointMode(e), Ports: ports(e.GetPorts()), AllowFrom: e.GetAllowFrom()}
}

func endpointMode(e *typesv1.EndpointSpec) string {
	if e.GetMode() == typesv1.EndpointMode_ENDPOINT_MODE_DNSRR {
		return "dnsrr"
	}
	return "vip"
}
