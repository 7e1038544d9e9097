package harness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/test/harness/lan"
)

// Partition cuts all traffic between the sides, in both directions, IPv4 and IPv6. Hosts of one side go on reaching
// each other, and hosts that are in no side, and the outer machine, reach everybody; the outer machine is named
// "outer" where it shall be in a side. Partitions add up until Heal.
func (l *Lab) Partition(_ context.Context, sides ...[]string) error {
	return l.change(func(state *State) error {
		if err := checkSides(*state, sides); err != nil {
			return err
		}
		state.Faults.Partitions = append(state.Faults.Partitions, sides)
		return l.lan().Apply(state.Faults)
	})
}

func checkSides(state State, sides [][]string) error {
	var faults []error
	if len(sides) < 2 {
		faults = append(faults, errors.New("a partition has at least two sides, such as m1,m2/w1,w2"))
	}
	seen := map[string]bool{}
	for _, side := range sides {
		if len(side) == 0 {
			faults = append(faults, errors.New("a side of a partition has no host"))
		}
		for _, name := range side {
			known := name == lan.Outer || slices.ContainsFunc(state.Hosts, func(h Host) bool { return h.Name == name })
			if !known {
				faults = append(faults, fmt.Errorf("no host %q: the lab has %s (and %s, the machine outside)",
					name, state.names(), lan.Outer))
			}
			if seen[name] {
				faults = append(faults, fmt.Errorf("host %q is named twice", name))
			}
			seen[name] = true
		}
	}
	return errors.Join(faults...)
}

// ParseSides reads a partition as people write it: m1,m2/w1,w2.
func ParseSides(text string) [][]string {
	var sides [][]string
	for side := range strings.SplitSeq(text, "/") {
		var names []string
		for name := range strings.SplitSeq(side, ",") {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, name)
			}
		}
		sides = append(sides, names)
	}
	return sides
}

// Isolate loses every packet from and to a host, also the outer machine's, while its link stays up.
func (l *Lab) Isolate(_ context.Context, host string) error {
	return l.change(func(state *State) error {
		if _, _, err := l.host(host); err != nil {
			return err
		}
		if !slices.Contains(state.Faults.Isolated, host) {
			state.Faults.Isolated = append(state.Faults.Isolated, host)
		}
		return l.lan().Apply(state.Faults)
	})
}

// Unplug pulls a host's cable: its link loses the carrier. It stays out over power cycles.
func (l *Lab) Unplug(_ context.Context, host string) error { return l.plug(host, false) }

// Plug puts a host's cable back in.
func (l *Lab) Plug(_ context.Context, host string) error { return l.plug(host, true) }

func (l *Lab) plug(host string, in bool) error {
	return l.change(func(state *State) error {
		if _, _, err := l.host(host); err != nil {
			return err
		}
		for i := range state.Hosts {
			if state.Hosts[i].Name == host {
				state.Hosts[i].Unplugged = !in
			}
		}
		return l.lan().SetPort(host, in)
	})
}

// Heal ends every network fault: partitions, isolations and pulled cables.
func (l *Lab) Heal(_ context.Context) error {
	return l.change(func(state *State) error {
		state.Faults = lan.Faults{}
		faults := []error{l.lan().Apply(state.Faults)}
		for i := range state.Hosts {
			if state.Hosts[i].Unplugged {
				state.Hosts[i].Unplugged = false
				faults = append(faults, l.lan().SetPort(state.Hosts[i].Name, true))
			}
		}
		return errors.Join(faults...)
	})
}
