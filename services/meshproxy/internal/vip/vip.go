// Package vip says who stands behind the virtual addresses of a container's networks, and what leads from one such table to
// another.
//
// It is pure: no kernel, no clock. Tables are never changed once made, so they are safe for concurrent use.
package vip

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// Table has the backends of each virtual address, of its own family and in order. An address without backends refuses.
type Table map[netip.Addr][]netip.Addr

// Of makes the table of a network. Tasks that out names are left out: they are known to be dead before the cluster says so.
// What is no address is left out too.
func Of(d *mesh.Directory, out func(task string) bool) Table {
	return Next(Table{}, &mesh.Directory{}, d, out)
}

// Next makes the table of a network from that of an earlier directory, with the same tasks left out. What it costs follows
// what has changed, but for a copy.
func Next(t Table, old, next *mesh.Directory, out func(task string) bool) Table {
	if next == nil {
		next = &mesh.Directory{}
	}
	t = maps.Clone(t)
	for id := range old.Services.Differing(next.Services) {
		for v := range addresses(old.Services.Get(id)) {
			delete(t, v)
		}
	}
	for id := range next.Services.Differing(old.Services) {
		s := next.Services.Get(id)
		for v := range addresses(s) {
			t[v] = backends(s, v.Is4(), out)
		}
	}
	return t
}

// addresses are the virtual ones of a service.
func addresses(s *dispatcherv1.NetworkService) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, text := range s.GetVips() {
			if v, err := netip.ParseAddr(text); err == nil && !yield(v.Unmap()) {
				return
			}
		}
	}
}

// Counted leads from the virtual addresses of a network whose connections are counted, and led to somebody, to the ids of
// their services.
func Counted(d *mesh.Directory, t Table) map[netip.Addr]string {
	out := map[netip.Addr]string{}
	if d == nil {
		return out
	}
	for id, s := range d.Services.All() {
		if !s.GetCounted() {
			continue
		}
		for v := range addresses(s) {
			if len(t[v]) > 0 {
				out[v] = id
			}
		}
	}
	return out
}

func backends(s *dispatcherv1.NetworkService, is4 bool, out func(task string) bool) []netip.Addr {
	var list []netip.Addr
	for _, e := range s.GetEndpoints() {
		if out(e.GetTaskId()) {
			continue
		}
		for _, text := range e.GetAddresses() {
			if a, err := netip.ParseAddr(text); err == nil && a.Unmap().Is4() == is4 {
				list = append(list, a.Unmap())
				break // one vote a task
			}
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// Union is the table of a container that is on several networks, whose addresses never overlap.
func Union(tables ...Table) Table {
	if len(tables) == 1 {
		return tables[0]
	}
	all := Table{}
	for _, t := range tables {
		maps.Copy(all, t)
	}
	return all
}

// Change is one address whose backends are other ones. Without the address it goes.
type Change struct {
	VIP      netip.Addr
	Backends []netip.Addr
	// Fresh says that the address was not there before, Gone that it is not any more.
	Fresh, Gone bool
}

// Diff leads from have to want, in the order of addresses.
func Diff(have, want Table) []Change {
	var out []Change
	for v, backends := range want {
		had, there := have[v]
		if !there || !slices.Equal(had, backends) {
			out = append(out, Change{VIP: v, Backends: backends, Fresh: !there})
		}
	}
	for v := range have {
		if _, there := want[v]; !there {
			out = append(out, Change{VIP: v, Gone: true})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return a.VIP.Compare(b.VIP) })
	return out
}

// Left are the backends that stand behind nothing any more behind which they stood: connections that were led to them must
// be led elsewhere.
func Left(have Table, changes []Change) map[netip.Addr]bool {
	left := map[netip.Addr]bool{}
	for _, c := range changes {
		for _, b := range have[c.VIP] {
			if !slices.Contains(c.Backends, b) {
				left[b] = true
			}
		}
	}
	return left
}

// Departed are the addresses of tasks that have ended, between two models: their last entries are gone. Back are those that
// have come again.
func Departed(old, next *mesh.Model) (gone, back []netip.Addr) {
	had, has := map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for id, n := range old.Networks() {
		if now := next.Network(id); now != nil && now != n {
			Collect(n, had)
			Collect(now, has)
		}
	}
	for id, n := range next.Networks() {
		if old.Network(id) == nil {
			Collect(n, has)
		}
	}
	for a := range had {
		if !has[a] {
			gone = append(gone, a)
		}
	}
	for a := range has {
		if !had[a] {
			back = append(back, a)
		}
	}
	slices.SortFunc(gone, netip.Addr.Compare)
	slices.SortFunc(back, netip.Addr.Compare)
	return gone, back
}

// Collect adds the addresses of a network's tasks.
func Collect(n *dispatcherv1.MeshNetwork, into map[netip.Addr]bool) {
	for _, e := range n.GetEntries() {
		for _, text := range e.GetAddresses() {
			if a, err := netip.ParseAddr(text); err == nil {
				into[a.Unmap()] = true
			}
		}
	}
}
