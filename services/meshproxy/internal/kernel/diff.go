package kernel

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Diff lists the steps from have to want, in an order that is safe at each step:
//
//	Step 1: peers and rules, so that what is then made is guarded from its first moment.
//	Step 2: what must go, the entries before the links that they are on.
//	Step 3: links, down; the settings, which need the links; then up.
//	Step 4: addresses, routes, the entries, and last what leads packets there.
//
// The elements of the packet filter's maps come first, between peers and rules: one transaction takes all of it.
//
// Nothing that is right already is touched.
func Diff(want, have Kernel) []Change {
	out := diffSet(have.Peers, want.Peers, func(a netip.Addr) Change { return Change{Verb: Add, Peer: a} })
	entries := diffEntries(want, have)
	if len(entries) > others {
		out = slices.Grow(out, len(entries)+others)
	}
	out = append(out, entries...)
	if want.Rules.Mark != have.Rules.Mark {
		out = append(out, Change{Verb: Set, Rules: new(want.Rules)})
	}
	out = append(out, diffSet(want.Peers, have.Peers, func(a netip.Addr) Change { return Change{Verb: Remove, Peer: a} })...)
	links, gone := diffLinks(want, have)
	forwards := withoutLinks(have.Forwards, gone, func(f Forward) string { return f.Link })
	neighbours := withoutLinks(have.Neighbours, gone, func(n Neighbour) string { return n.Link })
	addresses := withoutLinks(have.Addresses, gone, func(a Address) string { return a.Link })
	routes := withoutLinks(have.Routes, gone, func(r Route) string { return r.Link })
	turned := turnRoutes(routes, want.Routes)

	out = append(out, diffSet(want.Policies, have.Policies, func(p Policy) Change { return Change{Verb: Remove, Policy: &p} })...)
	out = append(out, diffSet(want.Forwards, forwards, func(f Forward) Change { return Change{Verb: Remove, Forward: &f} })...)
	out = append(out, diffSet(want.Neighbours, neighbours, func(n Neighbour) Change { return Change{Verb: Remove, Neighbour: &n} })...)
	// A sealed way goes after the tunnels that stand on it: before, their last packets would take another.
	left := diffSet(want.Routes, routes, func(r Route) Change { return Change{Verb: Remove, Route: &r} })
	out = append(out, slices.DeleteFunc(slices.Clone(left), func(c Change) bool { return isSeal(c.Route.Link) })...)
	out = append(out, diffSet(want.Addresses, addresses, func(a Address) Change { return Change{Verb: Remove, Address: &a} })...)
	out = append(out, links...)
	out = append(out, slices.DeleteFunc(left, func(c Change) bool { return !isSeal(c.Route.Link) })...)
	out = append(out, diffSettings(want, have, gone)...)
	for _, name := range slices.Sorted(maps.Keys(want.Links)) {
		if l := want.Links[name]; l.Up && (gone[name] || !have.Links[name].Up) {
			out = append(out, Change{Verb: Up, Link: &l})
		}
	}
	out = append(out, diffSet(addresses, want.Addresses, func(a Address) Change { return Change{Verb: Add, Address: &a} })...)
	out = append(out, turned...)
	out = append(out, diffSet(routes, want.Routes, func(r Route) Change { return Change{Verb: Add, Route: &r} })...)
	out = append(out, diffSet(neighbours, want.Neighbours, func(n Neighbour) Change { return Change{Verb: Add, Neighbour: &n} })...)
	out = append(out, diffSet(forwards, want.Forwards, func(f Forward) Change { return Change{Verb: Add, Forward: &f} })...)
	if want.Return != "" && (want.Return != have.Return || gone[MachineTunnel]) {
		out = append(out, Change{Verb: Set, Return: true})
	}
	return append(out, diffSet(have.Policies, want.Policies, func(p Policy) Change { return Change{Verb: Add, Policy: &p} })...)
}

// others is a guess of the steps beside entries, of which there may be very many: the list of those is not to be copied for the rest.
const others = 1000

// diffLinks makes the steps for links, tunnels' removals first (a bridge's would only set them free), bridges' additions
// first. Gone are the names of links that do not survive: removed, or made again because a tunnel cannot be changed.
func diffLinks(want, have Kernel) (out []Change, gone map[string]bool) {
	gone = map[string]bool{}
	var removed, made []Change
	for _, name := range slices.Sorted(maps.Keys(have.Links)) {
		h := have.Links[name]
		w, wanted := want.Links[name]
		switch {
		case !wanted || w.Seal != h.Seal || w.VNI != h.VNI || w.Port != h.Port || w.Local != h.Local:
			gone[name] = true
			removed = append(removed, Change{Verb: Remove, Link: &h})
		case w.MTU != h.MTU || (w.MAC != "" && w.MAC != h.MAC) || w.Master != h.Master:
			made = append(made, Change{Verb: Set, Link: &w})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want.Links)) {
		if _, there := have.Links[name]; !there || gone[name] {
			made = append(made, Change{Verb: Add, Link: new(want.Links[name])})
		}
	}
	tunnelsFirst := func(a, b Change) int { return rank(b) - rank(a) }
	slices.SortStableFunc(removed, tunnelsFirst)
	slices.SortStableFunc(made, func(a, b Change) int { return -tunnelsFirst(a, b) })
	return append(removed, made...), gone
}

func rank(c Change) int {
	if c.Link.VNI != 0 {
		return 1
	}
	return 0
}

// diffSettings takes a setting of a link that is made again as absent.
func diffSettings(want, have Kernel, gone map[string]bool) []Change {
	var out []Change
	for _, path := range slices.Sorted(maps.Keys(want.Settings)) {
		fresh := slices.ContainsFunc(strings.Split(path, "/"), func(part string) bool { return gone[part] })
		value, got := want.Settings[path], have.Settings[path]
		if got != NoSetting && (fresh || got != value) {
			out = append(out, Change{Verb: Set, Setting: &Setting{path, value}})
		}
	}
	return out
}

// diffSet makes a change of each element of b that is not in a, in the order of their texts.
func diffSet[T comparable](a, b map[T]struct{}, change func(T) Change) []Change {
	var missing []T
	for v := range b {
		if _, there := a[v]; !there {
			missing = append(missing, v)
		}
	}
	slices.SortFunc(missing, func(x, y T) int { return strings.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
	out := make([]Change, 0, len(missing))
	for _, v := range missing {
		out = append(out, change(v))
	}
	return out
}

// withoutLinks leaves out what goes with its link.
func withoutLinks[T comparable](in map[T]struct{}, gone map[string]bool, link func(T) string) map[T]struct{} {
	out := maps.Clone(in)
	maps.DeleteFunc(out, func(v T, _ struct{}) bool { return gone[link(v)] })
	return out
}

// turnRoutes has a sealed way lead by another device in one step, since no packet may meet the moment between two. It takes what it has
// done into the routes that are there.
func turnRoutes(have, want map[Route]struct{}) []Change {
	old := map[netip.Prefix]Route{}
	for r := range have {
		if _, stays := want[r]; !stays && isSeal(r.Link) {
			old[r.Prefix] = r
		}
	}
	fresh := map[Route]struct{}{}
	for r := range want {
		was, turns := old[r.Prefix]
		if _, there := have[r]; there || !turns || !isSeal(r.Link) {
			continue
		}
		fresh[r] = struct{}{}
		delete(have, was)
	}
	out := diffSet(have, fresh, func(r Route) Change { return Change{Verb: Set, Route: &r} })
	maps.Copy(have, fresh)
	return out
}
