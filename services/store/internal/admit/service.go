package admit

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Bounds of a service.
const (
	MaxReplicas = 10_000
	// maxTask is the size of a task spec, encoded: a service keeps several, and must fit into one transaction.
	maxTask     = 64 << 10
	minNanoCPUs = 1_000_000 // a thousandth of a processor
	minMemory   = 4 << 20
	maxPriority = 1000
)

// Defaults of a service.
const (
	restartDelay = 5 * time.Second
	stopGrace    = 10 * time.Second
	maxDrain     = time.Hour
)

// vxlanPort is where tunnels end when the cluster does not say.
const vxlanPort = 8477

// OwnPort reports whether our own processes, or the tunnels of the cluster, use the port on machines that answer on published
// ports too.
func OwnPort(c *typesv1.Cluster, p typesv1.Protocol, port uint32) bool {
	switch p {
	case typesv1.Protocol_PROTOCOL_SCTP:
		return false
	case typesv1.Protocol_PROTOCOL_UDP:
		return port == cmp.Or(c.GetDataPath().GetPort(), vxlanPort)
	case typesv1.Protocol_PROTOCOL_UNSPECIFIED, typesv1.Protocol_PROTOCOL_TCP:
	}
	return port == 2377 || (port >= 2381 && port <= 2385)
}

// Service checks a spec and returns a copy with defaults and with networks by id. Id is the service's own, empty for one
// that is new.
func Service(s *state.Snapshot, id string, in *typesv1.ServiceSpec) (*typesv1.ServiceSpec, *Faults) {
	f := &Faults{}
	spec := proto.CloneOf(in)
	if spec == nil {
		spec = &typesv1.ServiceSpec{}
	}
	f.name(spec.GetAnnotations())
	if key, ok := s.ClaimHolder(state.NameClaim(typesv1.Kind_KIND_SERVICE, spec.GetAnnotations().GetName())); ok && key.ID != id {
		f.AddKind(errs.Exists, "name", "%q is taken by another service", spec.GetAnnotations().GetName())
	}
	if spec.Task == nil {
		spec.Task = &typesv1.TaskSpec{}
	}
	f.task(s, spec.GetTask())
	size := proto.Size(spec.GetTask())
	f.Check(size <= maxTask, "task", "has %d bytes, at most %d are allowed", size, maxTask)
	f.ports(s, id, spec)
	f.hostNetwork(spec)
	f.autoscale(s.Service(id), spec)
	f.mode(s, id, spec)
	f.guest(s, spec)
	f.dependencies(s, id, spec)
	f.callers(s, id, spec)
	f.fixed(s, id, spec)
	f.Check(spec.GetPriority() >= -maxPriority && spec.GetPriority() <= maxPriority, "priority", "%d is not from -%d to %d",
		spec.GetPriority(), maxPriority, maxPriority)
	f.rebalance(s, id, spec)
	f.slotVolumes(spec)
	if id == "" && spec.GetTask().GetContainer().GetAttach() == nil { // an update that said nothing of it would replace tasks
		defaultUsers(s.Cluster().GetSpec().GetContainers(), spec.GetTask().GetContainer())
	}
	return spec, f
}

func (f *Faults) task(s *state.Snapshot, t *typesv1.TaskSpec) {
	if t.Container == nil {
		t.Container = &typesv1.ContainerSpec{}
	}
	if t.GetContainer().GetAttach() != nil {
		f.attached(s.Cluster().GetSpec().GetContainers(), t.GetContainer())
	} else {
		f.container(t.GetContainer())
		f.isolation(s.Cluster().GetSpec().GetContainers(), t.GetContainer())
		f.files(s, t.GetContainer())
	}
	if t.Restart == nil {
		t.Restart = &typesv1.RestartPolicy{}
	}
	f.restart(t.GetRestart())
	f.networks(s, t)
	f.logDriver(t.GetLogDriver())
	f.placement(s, t.GetPlacement())
	limits, reserved := t.GetResources().GetLimits(), t.GetResources().GetReservations()
	f.resources("limits", limits)
	f.resources("reservations", reserved)
	f.swap(t.GetResources())
	f.Check(len(limits.GetGeneric()) == 0, "resources.limits.generic", "generic resources can be reserved and not limited")
	f.Check(limits.GetDiskBytes() == 0, "resources.limits.disk_bytes", "disk can be reserved and not limited")
	f.generic("resources.reservations.generic", reserved.GetGeneric())
	f.Check(limits.GetMemoryBytes() == 0 || reserved.GetMemoryBytes() <= limits.GetMemoryBytes(),
		"resources.reservations.memory_bytes", "%d is more than the limit, %d", reserved.GetMemoryBytes(), limits.GetMemoryBytes())
	f.Check(limits.GetNanoCpus() == 0 || reserved.GetNanoCpus() <= limits.GetNanoCpus(),
		"resources.reservations.nano_cpus", "%d is more than the limit, %d", reserved.GetNanoCpus(), limits.GetNanoCpus())
}

func (f *Faults) duration(field string, d *durationpb.Duration) {
	if d == nil {
		return
	}
	f.Check(d.IsValid() && d.AsDuration() >= 0, field, "%s is below 0", d.AsDuration())
}

func (f *Faults) restart(r *typesv1.RestartPolicy) {
	if r.GetCondition() == typesv1.RestartCondition_RESTART_CONDITION_UNSPECIFIED {
		r.Condition = typesv1.RestartCondition_RESTART_CONDITION_ANY
	}
	_, known := typesv1.RestartCondition_name[int32(r.GetCondition())]
	f.Check(known, "restart.condition", "%d is not known", r.GetCondition())
	if r.Delay == nil {
		r.Delay = durationpb.New(restartDelay)
	}
	f.duration("restart.delay", r.GetDelay())
	f.duration("restart.window", r.GetWindow())
	f.duration("restart.max_delay", r.GetMaxDelay())
	if r.GetMaxDelay() != nil && r.GetMaxDelay().AsDuration() > 0 {
		f.Check(r.GetMaxDelay().AsDuration() >= r.GetDelay().AsDuration(), "restart.max_delay", "%s is below the delay, %s",
			r.GetMaxDelay().AsDuration(), r.GetDelay().AsDuration())
	}
}

func (f *Faults) resources(which string, r *typesv1.Resources) {
	cpus, memory := r.GetNanoCpus(), r.GetMemoryBytes()
	f.Check(cpus == 0 || cpus >= minNanoCPUs, "resources."+which+".nano_cpus", "%d is below the least, %d", cpus, minNanoCPUs)
	f.Check(memory == 0 || memory >= minMemory, "resources."+which+".memory_bytes", "%d is below the least, %d (4 MiB)", memory, minMemory)
	f.Check(r.GetDiskBytes() >= 0, "resources."+which+".disk_bytes", "%d is below 0", r.GetDiskBytes())
	f.Check(r.GetPids() >= 0, "resources."+which+".pids", "%d is below 0", r.GetPids())
}

func (f *Faults) networks(s *state.Snapshot, t *typesv1.TaskSpec) {
	var names, seen []string
	for n := range s.Networks() {
		names = append(names, n.GetSpec().GetAnnotations().GetName())
	}
	for i, a := range t.GetNetworks() {
		field := fmt.Sprintf("networks[%d]", i)
		n, ambiguous := findNetwork(s, a.GetTarget())
		switch {
		case a.GetTarget() == "":
			f.Add(field, "names no network")
		case ambiguous:
			f.Add(field, "%q begins the ids of several networks", a.GetTarget())
		case n == nil:
			f.AddKind(errs.Precondition, field, "no network %q%s", a.GetTarget(), suggest(a.GetTarget(), names))
		case slices.Contains(seen, n.GetMeta().GetId()):
			f.Add(field, "network %q is named twice", a.GetTarget())
		default:
			seen = append(seen, n.GetMeta().GetId())
			a.Target = n.GetMeta().GetId()
		}
		for j, alias := range a.GetAliases() {
			f.Check(len(alias) <= MaxName && validName(alias), fmt.Sprintf("%s.aliases[%d]", field, j), "%q is no name", alias)
		}
	}
}

func (f *Faults) ports(s *state.Snapshot, id string, spec *typesv1.ServiceSpec) {
	_, known := typesv1.EndpointMode_name[int32(spec.GetEndpoint().GetMode())]
	f.Check(known, "endpoint.mode", "%d is not known", spec.GetEndpoint().GetMode())
	dnsrr := spec.GetEndpoint().GetMode() == typesv1.EndpointMode_ENDPOINT_MODE_DNSRR
	seen := map[string]int{}
	for i, p := range spec.GetEndpoint().GetPorts() {
		field := fmt.Sprintf("ports[%d]", i)
		if p.GetProtocol() == typesv1.Protocol_PROTOCOL_UNSPECIFIED {
			p.Protocol = typesv1.Protocol_PROTOCOL_TCP
		}
		if p.GetPublishMode() == typesv1.PublishMode_PUBLISH_MODE_UNSPECIFIED {
			p.PublishMode = typesv1.PublishMode_PUBLISH_MODE_INGRESS
		}
		_, known := typesv1.Protocol_name[int32(p.GetProtocol())]
		f.Check(known, field+".protocol", "%d is not known", p.GetProtocol())
		_, known = typesv1.PublishMode_name[int32(p.GetPublishMode())]
		f.Check(known, field+".publish_mode", "%d is not known", p.GetPublishMode())
		f.served(field, p)
		f.Check(p.GetTargetPort() >= 1 && p.GetTargetPort() <= 65535, field+".target_port", "%d is not from 1 to 65535", p.GetTargetPort())
		f.published(s, id, field+".published_port", p, seen, i)
		f.Check(!dnsrr || p.GetPublishMode() != typesv1.PublishMode_PUBLISH_MODE_INGRESS, field,
			"a service with endpoint mode dnsrr has no port on every machine; use endpoint mode vip")
	}
}

// served checks how a port is served.
func (f *Faults) served(field string, p *typesv1.PortConfig) {
	_, known := typesv1.Dataplane_name[int32(p.GetDataplane())]
	f.Check(known, field+".dataplane", "%d is not known", p.GetDataplane())
	f.Check(p.GetDataplane() != typesv1.Dataplane_DATAPLANE_USERSPACE || p.GetProtocol() != typesv1.Protocol_PROTOCOL_SCTP, field+".dataplane",
		"SCTP is served by the kernel alone; leave it out")
	_, known = typesv1.TrafficPolicy_name[int32(p.GetTrafficPolicy())]
	f.Check(known, field+".traffic_policy", "%d is not known", p.GetTrafficPolicy())
	_, known = typesv1.SessionAffinity_name[int32(p.GetSessionAffinity())]
	f.Check(known, field+".session_affinity", "%d is not known", p.GetSessionAffinity())
	if p.GetProxyProtocol() {
		f.Check(p.GetProtocol() == typesv1.Protocol_PROTOCOL_TCP, field+".proxy_protocol", "is spoken on TCP alone")
		f.Check(p.GetDataplane() != typesv1.Dataplane_DATAPLANE_KERNEL, field+".proxy_protocol", "the kernel cannot speak it; leave dataplane out, or say userspace")
	}
	if text := p.GetHostIp(); text != "" {
		_, errA := netip.ParseAddr(text)
		_, errP := netip.ParsePrefix(text)
		f.Check(errA == nil || errP == nil, field+".host_ip", "%q is no IP address and no CIDR", text)
	}
}

// published checks a port that was asked for; 0 asks for the next free one.
func (f *Faults) published(s *state.Snapshot, id, field string, p *typesv1.PortConfig, seen map[string]int, i int) {
	port := p.GetPublishedPort()
	if port == 0 {
		return
	}
	if port > 65535 {
		f.Add(field, "%d is not from 1 to 65535", port)
		return
	}
	claim, name := state.PortClaim(p.GetProtocol(), port), fmt.Sprintf("%d/%s", port, state.ProtocolName(p.GetProtocol()))
	if before, ok := seen[claim]; ok {
		f.Add(field, "%s is asked for by ports[%d] already", name, before)
	}
	seen[claim] = i
	f.Check(!OwnPort(s.Cluster(), p.GetProtocol(), port), field, "%s is one of shoal's own", name)
	if key, ok := s.ClaimHolder(claim); ok && key.ID != id {
		f.AddKind(errs.Exists, field, "%s is taken by service %q; leave it out to get the next free one",
			name, s.Service(key.ID).GetSpec().GetAnnotations().GetName())
	}
	if !state.OnHost(p) {
		f.notOnHosts(s, id, field, p, name)
	}
}

// notOnHosts: a port that answers on every machine may be a host port of no other service, and of no task that has got it for
// itself. Two services may have the same host port: the scheduler keeps their tasks apart.
func (f *Faults) notOnHosts(s *state.Snapshot, id, field string, p *typesv1.PortConfig, name string) {
	if svc := s.HostPortHolder(p.GetProtocol(), p.GetPublishedPort(), id); svc != nil {
		f.AddKind(errs.Exists, field, "%s is taken on the machines of service %q", name, svc.GetSpec().GetAnnotations().GetName())
		return
	}
	if p.GetPublishedPort() < state.FirstHostPort {
		return
	}
	for t := range s.Tasks() {
		for _, c := range t.GetDecided().GetHostPorts() {
			if c.GetPublishedPort() == p.GetPublishedPort() && c.GetProtocol() == p.GetProtocol() && !state.Terminal(t.GetObserved().GetState()) {
				f.AddKind(errs.Exists, field, "%s is taken by a task of service %q on its machine; choose one below %d",
					name, s.Service(t.GetServiceId()).GetSpec().GetAnnotations().GetName(), state.FirstHostPort)
				return
			}
		}
	}
}
