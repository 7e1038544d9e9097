package admit

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// maxFixed is how many addresses a service may name on a network.
const maxFixed = 256

// fixed checks the addresses that a service names for its slots: there must be one for each, and nobody else's.
func (f *Faults) fixed(s *state.Snapshot, id string, spec *typesv1.ServiceSpec) {
	named := false
	for i, a := range spec.GetTask().GetNetworks() {
		n := s.Network(a.GetTarget())
		if len(a.GetAddresses()) == 0 || n == nil {
			continue
		}
		named = true
		field := fmt.Sprintf("networks[%d].addresses", i)
		f.Check(len(a.GetAddresses()) <= maxFixed, field, "has %d entries, at most %d are allowed", len(a.GetAddresses()), maxFixed)
		families := map[string]uint64{}
		for j, text := range a.GetAddresses() {
			at, err := netip.ParseAddr(text)
			if err != nil {
				f.Add(fmt.Sprintf("%s[%d]", field, j), "%q is no address", text)
				continue
			}
			a.Addresses[j] = at.String()
			families[map[bool]string{true: "IPv4", false: "IPv6"}[at.Is4()]]++
			f.Check(!slices.Contains(a.GetAddresses()[:j], at.String()), fmt.Sprintf("%s[%d]", field, j), "%s is named twice", at)
			f.free(s, id, n, fmt.Sprintf("%s[%d]", field, j), at)
		}
		if replicated, ok := spec.GetMode().(*typesv1.ServiceSpec_Replicated); ok {
			want := max(replicated.Replicated.GetReplicas(), spec.GetAutoscale().GetMax())
			for _, family := range []string{"IPv4", "IPv6"} {
				f.Check(families[family] == 0 || families[family] >= want, field, "has %d of %s for up to %d tasks, each of which needs its own", families[family], family, want)
			}
		} else {
			f.Add(field, "are given by slot, which only the tasks of a replicated service have")
		}
	}
	r := spec.GetRebalance()
	asked := r.GetAlways() || r.GetRequest() != s.Service(id).GetSpec().GetRebalance().GetRequest()
	f.Check(!named || !asked, "rebalance", "would have a task run beside the one that it follows, and they cannot both have their slot's address")
	for which, c := range map[string]*typesv1.UpdateConfig{"update": spec.GetUpdate(), "rollback": spec.GetRollback()} {
		f.Check(!named || c.GetOrder() != typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST, which+".order",
			"a task with an address of its slot's own starts when the one before it has stopped; use stop-first")
	}
}

// free reports an address that a task cannot have.
func (f *Faults) free(s *state.Snapshot, id string, n *typesv1.Network, field string, a netip.Addr) {
	name := n.GetSpec().GetAnnotations().GetName()
	var in netip.Prefix
	for _, text := range n.GetIpam().GetSubnets() {
		if p, err := netip.ParsePrefix(text); err == nil && p.Contains(a) {
			in = p.Masked()
		}
	}
	switch {
	case !in.IsValid():
		f.Add(field, "%s is in no subnet of network %q", a, name)
		return
	case a == in.Addr() || a == in.Addr().Next() || a.Is4() && !in.Contains(a.Next()):
		f.Add(field, "%s is given to nobody: the first two addresses of a subnet and the last are kept", a)
		return
	}
	network := n.GetMeta().GetId()
	if key, ok := s.ClaimHolder(state.FixedClaim(network, a.String())); ok && key.ID != id {
		f.AddKind(errs.Exists, field, "%s is named by service %q", a, s.Service(key.ID).GetSpec().GetAnnotations().GetName())
		return
	}
	key, ok := s.ClaimHolder(state.AddressClaim(network, a.String()))
	switch {
	case !ok:
	case key.Kind == typesv1.Kind_KIND_NETWORK:
		f.AddKind(errs.Exists, field, "%s is kept for somebody else by network %q", a, name)
	case key.Kind == typesv1.Kind_KIND_SERVICE:
		f.AddKind(errs.Exists, field, "%s is the virtual address of service %q", a, s.Service(key.ID).GetSpec().GetAnnotations().GetName())
	case s.Task(key.ID).GetServiceId() != id || id == "":
		t := s.Task(key.ID)
		f.AddKind(errs.Exists, field, "%s is that of task %q", a, state.TaskName(s.Service(t.GetServiceId()), t))
	}
}
