package kernel

import (
	"cmp"
	"maps"
	"slices"
)

// Names of the sets and maps of the packet filter that hold what is published and who is a peer. Where there is one a
// family, its name ends in 4 or 6; Family adds it. Keys and values are texts: fields with a blank between them.
const (
	// SetPorts leads a published port, "tcp 30000", to its turn.
	SetPorts = "ports"
	// SetBound is the same for ports that answer on some addresses alone: "198.51.100.1 tcp 30000".
	SetBound = "bound"
	// SetTurns leads a turn to the chain that takes it. Adding an element makes the chain, removing it takes it away.
	SetTurns = "turns"
	// SetBackends has the tasks of a port by their place in the turn: "tcp 30000 0" leads to "10.128.1.5 8000".
	SetBackends = "backends"
	// SetHairpins has the containers that may reach themselves through a published port, each twice.
	SetHairpins = "hairpins"
	// SetReturns pairs an address of a machine with that of a task on it: see Rules.Gateways.
	SetReturns = "returns"
	// SetCounted has the ports whose connections are counted, "tcp 30000", SetCountedAt those that answer on some addresses
	// alone. The kernel counts with each element.
	SetCounted   = "counted"
	SetCountedAt = "countedat"
	// SetListened has the ports that the meshproxy carries, "tcp 30000", SetListenedAt those that answer on some addresses alone.
	SetListened   = "listened"
	SetListenedAt = "listenedat"
	// SetOwners has the addresses of this machine's containers, each after the MAC address of its interface: "02:42:0a:80:01:05
	// 10.128.1.5". What is not in it is no container's. SetEnclosed has those of containers without a way out.
	SetOwners   = "owners"
	SetEnclosed = "enclosed"
	// SetSenders and SetZones lead from the MAC address of a peer's tunnel end to its mark and its zone.
	SetSenders = "senders"
	SetZones   = "zones"
	// SetSealed has the identifiers of the networks whose tunnel packets must be within WireGuard.
	SetSealed = "sealed"
	// SetFlows has the places where the kernel may know connections: "tcp 10.128.1.5 8000". It is no set of the kernel's:
	// removing an element removes those connections.
	SetFlows = "flows"
	// SetWays leads from a mark back to the MAC address. It is in the table of the tunnel itself.
	SetWays = "ways"
)

// Slot is a place in a set or map.
type Slot struct{ Set, Key string }

// Entry is an element: of a set when Value is empty, else of a map.
type Entry struct {
	Slot
	Value string
}

// String is for logs and scripts.
func (e Entry) String() string {
	if e.Value == "" {
		return e.Set + " " + e.Key
	}
	return e.Set + " " + e.Key + " = " + e.Value
}

// Part is the share of one owner in the elements: a service's, or all that is read back. It is never changed once made.
type Part struct{ elements map[Slot]string }

// NewPart makes one of elements that nobody changes any more.
func NewPart(elements map[Slot]string) *Part { return &Part{elements: elements} }

// Entries are elements of sets and maps, by owner.
type Entries map[string]*Part

// Len counts the elements.
func (p *Part) Len() int {
	if p == nil {
		return 0
	}
	return len(p.elements)
}

// Elements counts those of sets and maps.
func (k Kernel) Elements() (n int) {
	for _, p := range k.Entries {
		n += p.Len()
	}
	for _, p := range k.Services.All() {
		n += p.Len()
	}
	return n
}

// Has says that there is an element in that place, whoever's it is: of a kernel that was read, of which no service has a share of its own.
func (k Kernel) Has(at Slot) bool {
	for _, p := range k.Entries {
		if _, there := p.elements[at]; there {
			return true
		}
	}
	return false
}

// diffEntries lists the steps from have to want: removals first, so that an element which changes its value is never
// there twice. Only parts that are not the very same are looked at: the cost is that of the change.
func diffEntries(want, have Kernel) []Change {
	old, next := collect(have, want), collect(want, have)
	removed, added := apart(old, next), apart(next, old)
	out := make([]Change, 0, len(removed)+len(added))
	for i := range removed {
		out = append(out, Change{Verb: Remove, Entry: &removed[i]})
	}
	for i := range added {
		out = append(out, Change{Verb: Add, Entry: &added[i]})
	}
	return out
}

// apart lists what a has otherwise than b, or alone, in order.
func apart(a, b map[Slot]string) []Entry {
	n := 0
	for slot, value := range a {
		if other, there := b[slot]; !there || other != value {
			n++
		}
	}
	out := make([]Entry, 0, n) // at the start it is all that there is: it must not be there twice while it grows
	for slot, value := range a {
		if other, there := b[slot]; !there || other != value {
			out = append(out, Entry{slot, value})
		}
	}
	slices.SortFunc(out, func(x, y Entry) int { return compareSlots(x.Slot, y.Slot) })
	return out
}

// collect puts together what parts have that are not the same in other.
func collect(k, other Kernel) map[Slot]string {
	var parts []*Part
	for owner, p := range k.Entries {
		if other.Entries[owner] != p {
			parts = append(parts, p)
		}
	}
	for id := range k.Services.Differing(other.Services) {
		parts = append(parts, k.Services.Get(id))
	}
	n := 0
	for _, p := range parts {
		n += p.Len()
	}
	out := make(map[Slot]string, n)
	for _, p := range parts {
		if p != nil { // else it is there in other alone
			maps.Copy(out, p.elements)
		}
	}
	return out
}

func compareSlots(a, b Slot) int {
	if c := cmp.Compare(a.Set, b.Set); c != 0 {
		return c
	}
	if c := cmp.Compare(len(a.Key), len(b.Key)); c != 0 {
		return c
	}
	return cmp.Compare(a.Key, b.Key)
}

// Family is the name of a set for addresses of one family.
func Family(set string, is4 bool) string {
	if is4 {
		return set + "4"
	}
	return set + "6"
}

// Always says that a set is there also where the kernel does not carry published ports.
func Always(set string) bool {
	if set == SetSealed {
		return true
	}
	for _, name := range []string{SetOwners, SetEnclosed, SetListened, SetListenedAt} {
		if set == Family(name, true) || set == Family(name, false) {
			return true
		}
	}
	return false
}
