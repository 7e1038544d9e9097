package insight

import (
	"fmt"
	"net/netip"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/turn"
)

// step is an element that connections to a port pass, and what it should lead to.
type step struct {
	kernel.Slot
	value string
}

// stepsOf are the elements of one family that lead connections to a port, in their order, and one for each of its backends of that
// family. None: the kernel does not carry it.
func stepsOf(p mesh.Port, is4 bool) (steps, ends []step) {
	if p.UserSpace || p.Refused {
		return nil, nil
	}
	for _, b := range p.Backends {
		if at, ok := ofFamily(b, is4); ok {
			ends = append(ends, step{
				kernel.Slot{Set: kernel.Family(kernel.SetBackends, is4), Key: fmt.Sprintf("%s %d %d", p.Network, p.Port, len(ends))}, elementOf(at),
			})
		}
	}
	if len(ends) == 0 {
		return nil, nil
	}
	t := turn.Of(p.Port, len(ends), p.Affinity)
	if p.Bind == nil {
		steps = append(steps, step{kernel.Slot{Set: kernel.Family(kernel.SetPorts, is4), Key: fmt.Sprintf("%s %d", p.Network, p.Port)}, t.String()})
	}
	for _, a := range p.Bind {
		if a.Is4() == is4 {
			steps = append(steps, step{kernel.Slot{Set: kernel.Family(kernel.SetBound, is4), Key: fmt.Sprintf("%s %s %d", a, p.Network, p.Port)}, t.String()})
		}
	}
	return append(steps, step{kernel.Slot{Set: kernel.Family(kernel.SetTurns, is4), Key: t.String()}, t.Chain(is4)}), ends
}

func elementOf(at netip.AddrPort) string { return fmt.Sprintf("%s %d", at.Addr(), at.Port()) }

func ofFamily(b mesh.Backend, is4 bool) (netip.AddrPort, bool) {
	at := b.For(is4)
	return at, at.IsValid() && at.Addr().Is4() == is4
}
