package tables

import (
	"fmt"

	"github.com/google/nftables"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/layout"
)

// mapped are our table's sets and maps by name, with what is in them.
type mapped struct {
	table   *nftables.Table
	layouts map[string]layout.Layout
	sets    map[string]*nftables.Set
}

func newMaps(t *nftables.Table, all map[string]layout.Layout) mapped {
	m := mapped{table: t, layouts: all, sets: map[string]*nftables.Set{}}
	for name, l := range all {
		m.sets[name] = l.Set(t, name)
	}
	return m
}

// make has all sets and maps be there; without the mesh only those that stand alone.
func (m mapped) make(conn *nftables.Conn, all bool) error {
	for name, s := range m.sets {
		if !all && !kernel.Always(name) {
			continue
		}
		if err := conn.AddSet(s, nil); err != nil {
			return err
		}
	}
	return nil
}

// change puts a transaction's share of the elements together, in the order that they come in: removals first, so that what changes its
// value is free when it comes again; chains before the elements that lead to them, and away after. A set that stands alone may be asked
// for before its rules are, of a table that an earlier version has made.
func (m mapped) change(conn *nftables.Conn, changes []kernel.Change) error {
	made, there, run := map[string]bool{}, map[string]bool{}, batched{conn: conn}
	for _, c := range changes {
		l, ours := m.layouts[entrySet(c)]
		if !ours {
			continue
		}
		e, err := l.Element(*c.Entry)
		if err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
		if l.Verdict && c.Verb == kernel.Add {
			if err := m.addTurn(conn, c.Entry.Value); err != nil {
				return err
			}
			made[c.Entry.Value] = true
		}
		if set := c.Entry.Set; c.Verb == kernel.Add && kernel.Always(set) && !there[set] {
			if err := conn.AddSet(m.sets[set], nil); err != nil {
				return err
			}
			there[set] = true
		}
		if err := run.put(m.sets[c.Entry.Set], c.Verb, e); err != nil {
			return err
		}
	}
	if err := run.flush(); err != nil {
		return err
	}
	for _, c := range changes {
		if l, ours := m.layouts[entrySet(c)]; ours && l.Verdict && c.Verb == kernel.Remove && !made[c.Entry.Value] && c.Entry.Value != changedTurn {
			chain := &nftables.Chain{Table: m.table, Name: c.Entry.Value}
			conn.FlushChain(chain)
			conn.DelChain(chain)
		}
	}
	return nil
}

// batched makes messages of elements of one set after the other. It keeps no more of them than one message has.
type batched struct {
	conn     *nftables.Conn
	set      *nftables.Set
	verb     kernel.Verb
	elements []nftables.SetElement
}

func (b *batched) put(s *nftables.Set, v kernel.Verb, e nftables.SetElement) error {
	if b.set != s || b.verb != v || len(b.elements) == batch {
		if err := b.flush(); err != nil {
			return err
		}
		b.set, b.verb = s, v
	}
	b.elements = append(b.elements, e)
	return nil
}

func (b *batched) flush() (err error) {
	switch {
	case len(b.elements) == 0:
	case b.verb == kernel.Remove:
		err = b.conn.SetDeleteElements(b.set, b.elements)
	default:
		err = b.conn.SetAddElements(b.set, b.elements)
	}
	b.elements = b.elements[:0]
	return err
}

func entrySet(c kernel.Change) string {
	if c.Entry == nil {
		return ""
	}
	return c.Entry.Set
}

// read lists what is in the sets and maps. One that is not there is empty.
func (m mapped) read(conn *nftables.Conn, into map[kernel.Slot]string) error {
	there, err := conn.GetSets(m.table)
	if err != nil {
		return ignoreAbsent(err)
	}
	for _, s := range there {
		name := s.Name
		l, ours := m.layouts[name]
		if !ours {
			continue
		}
		elements, err := conn.GetSetElements(m.sets[name])
		if err != nil {
			return fmt.Errorf("list %s: %w", name, err)
		}
		for _, e := range elements {
			into[kernel.Slot{Set: name, Key: l.Key(e)}] = l.Text(e)
		}
	}
	return nil
}

// changedTurn is read for the chain of a turn that somebody has changed. Adding the turn makes it right again.
const changedTurn = "changed"

// Elements are what is in the kernel's sets and maps now. It may be called beside everything else.
func (k *Kernel) Elements() (map[kernel.Slot]string, error) {
	conn, err := open()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	out := map[kernel.Slot]string{}
	return out, newFilter().maps.read(conn, out)
}
