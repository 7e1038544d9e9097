package place

import (
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/constraint"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Request is what a task of one spec asks of a node.
type Request struct {
	Need        *typesv1.Resources    // nil: nothing
	Ports       []*typesv1.PortConfig // on the host, with their numbers
	AnyPorts    []*typesv1.PortConfig // on the host, of any number
	MaxReplicas int
	Strategy    typesv1.PlacementStrategy
	Preferences []string // keys of labels
	Affinities  []*typesv1.Affinity
	// Volumes are what it calls those of its slot. Where they are is not for this package to know.
	Volumes     []string
	constraints []constraint.Constraint
	platforms   []*typesv1.Platform
	tolerations []*typesv1.Toleration
	class       string
	users       bool // it wants a user namespace of its own
	// invalid is a constraint that makes no sense: no node meets it.
	invalid string
	// Fixed says that it names addresses for its slots: two tasks of one slot cannot be there at once.
	Fixed bool
	// Newer says that the spec asks for something that only a newer scheduler knows.
	Newer bool
}

// NewRequest compiles a spec. Endpoint gives its host ports; strategy is the cluster's.
func NewRequest(spec *typesv1.TaskSpec, ports []*typesv1.PortConfig, strategy typesv1.PlacementStrategy) *Request {
	p := spec.GetPlacement()
	r := &Request{
		Need: spec.GetResources().GetReservations(), MaxReplicas: int(min(p.GetMaxReplicas(), 1<<30)), Strategy: p.GetStrategy(),
		Affinities: p.GetAffinities(), Volumes: state.SlotSources(spec.GetContainer()), platforms: p.GetPlatforms(), tolerations: p.GetTolerations(),
	}
	r.Newer = state.Newer(p) || state.Newer(spec.GetResources()) || state.Newer(r.Need) ||
		slices.ContainsFunc(r.Affinities, func(a *typesv1.Affinity) bool { return state.Newer(a) }) ||
		slices.ContainsFunc(r.tolerations, func(x *typesv1.Toleration) bool { return state.Newer(x) })
	if r.Strategy == typesv1.PlacementStrategy_PLACEMENT_STRATEGY_UNSPECIFIED {
		r.Strategy = strategy
	}
	for _, text := range p.GetConstraints() {
		c, err := constraint.Parse(text)
		if err != nil {
			r.invalid = text
			continue
		}
		r.constraints = append(r.constraints, c)
	}
	for _, pref := range p.GetPreferences() {
		r.Preferences = append(r.Preferences, pref.GetSpread())
	}
	for _, port := range ports {
		switch {
		case !state.OnHost(port):
		case port.GetPublishedPort() == 0:
			r.AnyPorts = append(r.AnyPorts, port)
		default:
			r.Ports = append(r.Ports, port)
		}
	}
	for _, att := range spec.GetNetworks() {
		r.Fixed = r.Fixed || len(att.GetAddresses()) > 0
	}
	r.users = spec.GetContainer().GetPrivileges().GetUserNamespace() == typesv1.UserNamespace_USER_NAMESPACE_PRIVATE
	r.class = classOf(p, r.users)
	if amountOf(r.Need) == (Amount{}) && len(r.Need.GetGeneric()) == 0 {
		r.Need = nil
	}
	return r
}

// Class is the same for requests that find the same nodes eligible; empty when all nodes are that have no taint.
func (r *Request) Class() string { return r.class }

func classOf(p *typesv1.Placement, users bool) string {
	if len(p.GetConstraints())+len(p.GetPlatforms())+len(p.GetTolerations()) == 0 && !users {
		return ""
	}
	const apart = "\x00" // in no constraint
	var b strings.Builder
	if users {
		b.WriteString(apart + apart + apart)
	}
	for _, text := range p.GetConstraints() {
		b.WriteString(text + apart)
	}
	for _, x := range p.GetPlatforms() {
		b.WriteString(apart + x.GetOs() + apart + x.GetArchitecture())
	}
	for _, x := range p.GetTolerations() {
		b.WriteString(apart + apart + x.GetKey() + apart + x.GetValue())
	}
	return b.String()
}

func amountOf(r *typesv1.Resources) Amount {
	return Amount{CPUs: r.GetNanoCpus(), Memory: r.GetMemoryBytes(), PIDs: r.GetPids(), Disk: r.GetDiskBytes()}
}

// Eligible runs the filters that concern what a node is, not what is on it: a global service has a task on each node that
// passes them.
func (r *Request) Eligible(n *Node) Cause {
	if r.invalid != "" {
		return Constraint
	}
	for _, c := range r.constraints {
		if !c.Match(n.Object) {
			return Constraint
		}
	}
	if len(r.platforms) > 0 && !r.fitsPlatform(n.Object.GetStatus().GetDescription().GetPlatform()) {
		return Platform
	}
	if r.users && !n.Object.GetStatus().GetDescription().GetUserNamespaces() {
		return NoUsers
	}
	if r.taint(n, typesv1.TaintEffect_TAINT_EFFECT_NO_SCHEDULE) || r.taint(n, typesv1.TaintEffect_TAINT_EFFECT_NO_EXECUTE) {
		return Tainted
	}
	return None
}

// MayStay reports whether a task that runs on the node may go on: constraints hold, and no taint drives it away.
func (r *Request) MayStay(n *Node) Cause {
	for _, c := range r.constraints {
		if !c.Match(n.Object) {
			return Constraint
		}
	}
	if r.taint(n, typesv1.TaintEffect_TAINT_EFFECT_NO_EXECUTE) {
		return Tainted
	}
	return None
}

// Fits runs the filters that concern what is on a node. Count is the number of the service's tasks there.
func (r *Request) Fits(n *Node, count int) Cause {
	if n.Full {
		return NoAddress
	}
	if r.Need != nil {
		if c := r.Short(n, n.Used); c != None {
			return c
		}
		if len(r.Need.GetGeneric()) > 0 && n.lacks(r.Need.GetGeneric()) != "" {
			return Generic
		}
	}
	for _, p := range r.Ports {
		if n.ports[Port{p.GetProtocol(), p.GetPublishedPort()}] > 0 {
			return HostPort
		}
	}
	if len(r.AnyPorts) > 0 && len(n.ports)+len(r.AnyPorts) > mostPorts {
		return HostPort
	}
	if r.MaxReplicas > 0 && count >= r.MaxReplicas {
		return MaxReplicas
	}
	return None
}

// Short is the amount of which a node has too little when so much of it is taken.
func (r *Request) Short(n *Node, taken Amount) Cause {
	switch need := amountOf(r.Need); {
	case need.CPUs > 0 && taken.CPUs+need.CPUs > n.Have.CPUs:
		return CPUs
	case need.Memory > 0 && taken.Memory+need.Memory > n.Have.Memory:
		return Memory
	case need.PIDs > 0 && n.Have.PIDs > 0 && taken.PIDs+need.PIDs > n.Have.PIDs: // a machine that does not tell has enough
		return PIDs
	case need.Disk > 0 && taken.Disk+need.Disk > n.Have.Disk:
		return Disk
	}
	return None
}

// Packs reports whether tasks go where most is already.
func (r *Request) Packs() bool { return isBinpack(r) }

// Reserved is what a task of this request holds on the node: the request's own when no named piece has to be chosen.
func (r *Request) Reserved(n *Node) *typesv1.Resources {
	if len(r.Need.GetGeneric()) == 0 {
		return r.Need
	}
	return &typesv1.Resources{NanoCpus: r.Need.GetNanoCpus(), MemoryBytes: r.Need.GetMemoryBytes(), Pids: r.Need.GetPids(),
		DiskBytes: r.Need.GetDiskBytes(), Generic: n.assign(r.Need.GetGeneric())}
}

func (r *Request) fitsPlatform(have *typesv1.Platform) bool {
	return slices.ContainsFunc(r.platforms, func(p *typesv1.Platform) bool {
		return (p.GetOs() == "" || p.GetOs() == have.GetOs()) &&
			(p.GetArchitecture() == "" || p.GetArchitecture() == have.GetArchitecture())
	})
}

// taint reports whether the node has a taint of this effect that the request does not tolerate.
func (r *Request) taint(n *Node, effect typesv1.TaintEffect) bool {
	return slices.ContainsFunc(n.Object.GetSpec().GetTaints(), func(t *typesv1.Taint) bool {
		e := t.GetEffect()
		if e == typesv1.TaintEffect_TAINT_EFFECT_UNSPECIFIED {
			e = typesv1.TaintEffect_TAINT_EFFECT_NO_SCHEDULE
		}
		return e == effect && !slices.ContainsFunc(r.tolerations, func(o *typesv1.Toleration) bool {
			return (o.GetKey() == "" || o.GetKey() == t.GetKey()) && (o.GetValue() == "" || o.GetValue() == t.GetValue())
		})
	})
}

// platformNames is "linux/amd64 or linux/arm64".
func platformNames(ps []*typesv1.Platform) string {
	var names []string
	for _, p := range ps {
		names = append(names, strings.Trim(p.GetOs()+"/"+p.GetArchitecture(), "/"))
	}
	return strings.Join(names, " or ")
}
