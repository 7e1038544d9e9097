package space

import (
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"github.com/shoalproject/shoal/services/meshproxy/internal/vip"
)

// turn says how one of an address's tasks is chosen for a new connection: among how many, and by which counter. Addresses with
// equal turns share a chain, so that a task which comes or goes changes elements of maps and rarely a rule: the kernel checks
// all rules again when one is added, but not for an element.
type turn struct {
	family  uint8 // its place in layout.families
	counter uint8
	size    uint16
}

// counters bounds how many addresses of the same number of tasks have a counter of their own. Those that share one still
// spread their connections evenly, unless both are dialled in lockstep.
const counters = 64

func turnOf(v netip.Addr, size int) turn {
	b := v.AsSlice()
	t := turn{counter: b[len(b)-1] % counters, size: uint16(min(size, 1<<16-1))}
	if v.Is6() {
		t.family = 1
	}
	return t
}

// turnPrefix begins the names of all chains of turns.
const turnPrefix = "turn"

func (t turn) chain() string {
	return fmt.Sprintf("%s%s-%d-%d", turnPrefix, [2]string{"4", "6"}[t.family], t.size, t.counter)
}

// mark is the turn's number in the kernel: what addresses lead to, and turns lead from.
func (t turn) mark() []byte {
	return binaryutil.NativeEndian.PutUint32(uint32(t.counter)<<16 | uint32(t.size))
}

// turns counts the addresses of each turn.
type turns map[turn]int

// after are the turns in use after some changes.
func (t turns) after(have vip.Table, changes []vip.Change) turns {
	next := maps.Clone(t)
	if next == nil {
		next = turns{}
	}
	for _, ch := range changes {
		if n := len(have[ch.VIP]); n > 0 {
			old := turnOf(ch.VIP, n)
			if next[old]--; next[old] == 0 {
				delete(next, old)
			}
		}
		if n := len(ch.Backends); n > 0 {
			next[turnOf(ch.VIP, n)]++
		}
	}
	return next
}

// useless are the chains of turns among those that are not in use.
func (t turns) useless(chains []string) []string {
	used := map[string]bool{}
	for u := range t {
		used[u.chain()] = true
	}
	return slices.DeleteFunc(chains, func(name string) bool { return used[name] || !strings.HasPrefix(name, turnPrefix) })
}

// elements are those of one set that change, in order.
type elements struct{ gone, fresh []nftables.SetElement }

// order is that in which a container takes turns among so many tasks: each begins with another one, or the first connections of
// all containers would go to the same task.
func order(container string, backends []netip.Addr) []netip.Addr {
	if len(backends) < 2 {
		return backends
	}
	h := fnv.New32a()
	h.Write([]byte(container))
	first := int(h.Sum32() % uint32(len(backends)))
	return slices.Concat(backends[first:], backends[:first])
}

// change brings the maps to what they should be: chains before the elements that lead to them, and away after.
func (l layout) change(c *nftables.Conn, container string, have vip.Table, changes []vip.Change, had, want turns) error {
	for t := range want {
		if had[t] == 0 {
			if err := l.addTurn(c, t); err != nil {
				return err
			}
		}
	}
	for i, f := range l.families {
		var lead, backends elements
		for _, ch := range changes {
			if ch.VIP.Is4() == (i == 0) {
				leadTo(&lead, ch.VIP, len(have[ch.VIP]), len(ch.Backends))
				replace(&backends, ch.VIP, order(container, have[ch.VIP]), order(container, ch.Backends))
			}
		}
		if err := lead.into(c, f.vips); err != nil {
			return err
		}
		if err := backends.into(c, f.backends); err != nil {
			return err
		}
	}
	for t := range had {
		if want[t] == 0 {
			if err := l.dropTurn(c, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// leadTo changes the turn of an address when the number of its tasks does.
func leadTo(e *elements, v netip.Addr, had, has int) {
	if had == has {
		return
	}
	if had > 0 {
		e.gone = append(e.gone, nftables.SetElement{Key: v.AsSlice(), Val: turnOf(v, had).mark()})
	}
	if has > 0 {
		e.fresh = append(e.fresh, nftables.SetElement{Key: v.AsSlice(), Val: turnOf(v, has).mark()})
	}
}

// replace changes the places whose task is another one.
func replace(e *elements, v netip.Addr, had, has []netip.Addr) {
	for i := range max(len(had), len(has)) {
		if i < len(had) && i < len(has) && had[i] == has[i] {
			continue
		}
		key := append(v.AsSlice(), binaryutil.NativeEndian.PutUint32(uint32(i))...)
		if i < len(had) {
			e.gone = append(e.gone, nftables.SetElement{Key: key, Val: had[i].AsSlice()})
		}
		if i < len(has) {
			e.fresh = append(e.fresh, nftables.SetElement{Key: key, Val: has[i].AsSlice()})
		}
	}
}

// batch bounds the elements in one message, whose attribute is at most 64 KiB.
const batch = 500

// into puts the difference of a set into a transaction: what goes first, so that its place is free when it comes again.
func (e elements) into(c *nftables.Conn, s *nftables.Set) error {
	for _, step := range []struct {
		all []nftables.SetElement
		do  func(*nftables.Set, []nftables.SetElement) error
	}{{e.gone, c.SetDeleteElements}, {e.fresh, c.SetAddElements}} {
		for all := step.all; len(all) > 0; {
			n := min(batch, len(all))
			if err := step.do(s, all[:n]); err != nil {
				return err
			}
			all = all[n:]
		}
	}
	return nil
}
