package address

import (
	"fmt"
	"net/netip"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// fixed is the address of a slot in a subnet that the spec names, whether or not it rests. None is named: ok is false and why empty.
func (w *Allocator) fixed(att *typesv1.NetworkAttachment, name string, subnet netip.Prefix, slot uint64) (a netip.Addr, ok bool, why string) {
	var list []netip.Addr
	for _, text := range att.GetAddresses() {
		if a, err := netip.ParseAddr(text); err == nil && a.Is4() == subnet.Addr().Is4() {
			list = append(list, a)
		}
	}
	switch {
	case len(list) == 0:
		return netip.Addr{}, false, ""
	case slot < 1 || slot > uint64(len(list)):
		return netip.Addr{}, false, fmt.Sprintf("its service names %d addresses of network %s in %s, and none for slot %d", len(list), name, subnet, slot)
	}
	a = list[slot-1]
	claim := state.AddressClaim(att.GetTarget(), a.String())
	if w.claim(claim) {
		return a, true, ""
	}
	return netip.Addr{}, false, fmt.Sprintf("its address %s of network %s is held by %s", a, name, w.holder(claim))
}

// holder says in words who has a claim.
func (w *Allocator) holder(claim string) string {
	key, ok := w.s.ClaimHolder(claim)
	if !ok {
		return "a task that this decision places"
	}
	switch key.Kind {
	case typesv1.Kind_KIND_TASK:
		t := w.s.Task(key.ID)
		return "task " + state.TaskName(w.s.Service(t.GetServiceId()), t)
	case typesv1.Kind_KIND_SERVICE:
		return "service " + w.s.Service(key.ID).GetSpec().GetAnnotations().GetName()
	default:
		return "the network itself"
	}
}
