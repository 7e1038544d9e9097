// Package meshproxytest has what a test needs to run a meshproxy without a kernel: tables in memory, held to the same
// contract as the real ones by internal/tables/tablestest. Everything in it is safe for concurrent use.
package meshproxytest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// Tables are a machine's network in memory. They outlive the meshproxy that uses them, as a kernel does.
type Tables struct {
	mu       sync.Mutex // guards all below
	kernel   kernel.Kernel
	elements map[kernel.Slot]string
	applied  int
	fault    error
	sweeps   int
}

// NewTables makes the network of a machine that has nothing of ours.
func NewTables() *Tables {
	return &Tables{kernel: kernel.NewKernel(), elements: map[kernel.Slot]string{}}
}

// Underlay is that of an Ethernet, whatever the address.
func (t *Tables) Underlay(context.Context, netip.Addr) (int, error) { return 1500, nil }

// Addresses are one of a documentation range.
func (t *Tables) Addresses(context.Context) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("198.51.100.1")}, nil
}

// Watch hears nothing: nobody else changes these tables.
func (t *Tables) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}

// Holder cannot tell.
func (t *Tables) Holder(mesh.Listener) string { return "" }

// Read copies what there is.
func (t *Tables) Read(_ context.Context, settings []string) (kernel.Kernel, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.kernel
	k.Links, k.Addresses, k.Routes = maps.Clone(k.Links), maps.Clone(k.Addresses), maps.Clone(k.Routes)
	k.Neighbours, k.Forwards, k.Peers = maps.Clone(k.Neighbours), maps.Clone(k.Forwards), maps.Clone(k.Peers)
	k.Settings, k.Policies = maps.Clone(k.Settings), maps.Clone(k.Policies)
	k.Entries = kernel.Entries{"kernel": kernel.NewPart(maps.Clone(t.elements))}
	maps.DeleteFunc(k.Settings, func(path, _ string) bool { return !slices.Contains(settings, path) })
	k.Rules = kernel.Rules{Mark: k.Rules.Mark}
	return k, nil
}

// Apply does what a kernel would, and refuses what it would refuse: an entry on a link that is not there.
func (t *Tables) Apply(ctx context.Context, changes []kernel.Change) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fault != nil {
		return t.fault
	}
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.step(c); err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
		t.applied++
	}
	return nil
}

// Forget has no connections to end. It counts how often those that nobody knows were to be looked for.
func (t *Tables) Forget(networks []netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(networks) > 0 {
		t.sweeps++
	}
	return nil
}

// Sweeps is that count.
func (t *Tables) Sweeps() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sweeps
}

// Fail makes every Apply fail with this error until it is called with nil.
func (t *Tables) Fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fault = err
}

// Steps counts the changes so far.
func (t *Tables) Steps() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.applied
}

// Links are the names of the links, sorted.
func (t *Tables) Links() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.kernel.Links))
}

// HasBridge says that an overlay's bridge is up, for a fake executor that waits for it.
func (t *Tables) HasBridge(vni uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.kernel.Links[kernel.Bridge(vni)].Up
}

func (t *Tables) step(c kernel.Change) error {
	k := &t.kernel
	switch {
	case c.Link != nil:
		return t.changeLink(c.Verb, *c.Link)
	case c.Address != nil:
		return change(k, c.Verb, k.Addresses, *c.Address, c.Address.Link)
	case c.Route != nil:
		if c.Verb == kernel.Set { // in the place of another of its prefix
			maps.DeleteFunc(k.Routes, func(r kernel.Route, _ struct{}) bool { return r.Prefix == c.Route.Prefix && r.Table == c.Route.Table })
		}
		return change(k, c.Verb, k.Routes, *c.Route, c.Route.Link)
	case c.Neighbour != nil:
		return change(k, c.Verb, k.Neighbours, *c.Neighbour, c.Neighbour.Link)
	case c.Forward != nil:
		return change(k, c.Verb, k.Forwards, *c.Forward, c.Forward.Link)
	case c.Setting != nil:
		k.Settings[c.Setting.Path] = c.Setting.Value
	case c.Rules != nil:
		k.Rules = *c.Rules
	case c.Policy != nil:
		return change(k, c.Verb, k.Policies, *c.Policy, c.Policy.In)
	case c.Entry != nil:
		return t.changeEntry(c.Verb, *c.Entry)
	case c.Return:
		k.Return = kernel.ReturnMark
	case c.Verb == kernel.Add:
		k.Peers[c.Peer] = struct{}{}
	default:
		delete(k.Peers, c.Peer)
	}
	return nil
}

// changeEntry refuses what nftables would: to remove what is not there, or to add it with another value.
func (t *Tables) changeEntry(v kernel.Verb, e kernel.Entry) error {
	was, there := t.elements[e.Slot]
	switch {
	case v == kernel.Remove && !there:
		return fmt.Errorf("no element %s", e)
	case v == kernel.Add && there && was != e.Value:
		return fmt.Errorf("element %s is %s already", e, was)
	case v == kernel.Remove:
		delete(t.elements, e.Slot)
	default:
		t.elements[e.Slot] = e.Value
	}
	return nil
}

// Elements counts those of one set or map.
func (t *Tables) Elements(set string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for slot := range t.elements {
		if slot.Set == set {
			n++
		}
	}
	return n
}

func (t *Tables) changeLink(v kernel.Verb, l kernel.Link) error {
	k := &t.kernel
	have, there := k.Links[l.Name]
	switch v {
	case kernel.Remove: // and all that is on it
		if delete(k.Links, l.Name); l.Name == kernel.MachineTunnel {
			k.Return = ""
		}
		maps.DeleteFunc(k.Addresses, func(a kernel.Address, _ struct{}) bool { return a.Link == l.Name })
		maps.DeleteFunc(k.Routes, func(r kernel.Route, _ struct{}) bool { return r.Link == l.Name })
		maps.DeleteFunc(k.Neighbours, func(n kernel.Neighbour, _ struct{}) bool { return n.Link == l.Name })
		maps.DeleteFunc(k.Forwards, func(f kernel.Forward, _ struct{}) bool { return f.Link == l.Name })
		return nil
	case kernel.Add:
		l.Up = false
		k.Links[l.Name] = l
		return nil
	}
	if !there {
		return fmt.Errorf("no link %s", l.Name)
	}
	if v == kernel.Up {
		have.Up = true
		l = have
	}
	l.Up = have.Up
	k.Links[l.Name] = l
	return nil
}

func change[T comparable](k *kernel.Kernel, v kernel.Verb, set map[T]struct{}, value T, link string) error {
	if v == kernel.Remove {
		delete(set, value)
		return nil
	}
	if _, there := k.Links[link]; !there {
		return fmt.Errorf("no link %s", link)
	}
	set[value] = struct{}{}
	return nil
}

// Lose takes a link away, as somebody else on the machine may.
func (t *Tables) Lose(link string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.changeLink(kernel.Remove, kernel.Link{Name: link}) // a removal never fails
}
