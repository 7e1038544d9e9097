// Package voice says what a container's port of a bridge may say: with which addresses it speaks, for which it answers and asks its
// neighbours, and how often. A container that claims its neighbour's address, calls itself a router or floods questions is not heard.
//
// It owns the nftables table "shoal" of the bridge family and nothing else. Who has which address is the model's to say; that a port
// speaks with its own MAC address is the agent's lock on it. What comes by a tunnel was heard on the machine that sent it. One
// goroutine at a time may use a Part. Nothing is removed when the process stops.
package voice

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// tableName is one that the watch of the kernel's tables hears of, so that what others change is put back at once.
const tableName = "shoal"

// batch bounds the elements in one message, whose attribute is at most 64 KiB.
const batch = 500

// Health is told when the kernel refuses.
type Health interface {
	Set(part string, ok bool, why string)
}

// Part follows the models of a machine.
type Part struct {
	env      run.Env
	health   Health
	node     string
	transact func(flush func() error) error

	first, model *mesh.Model
	said         map[kernel.Slot]struct{} // what is in force; nil: not known
}

// New is for one machine. Transact makes a transaction of which the watch is not to tell.
func New(env run.Env, health Health, node string, transact func(flush func() error) error) *Part {
	return &Part{env: env, health: health, node: node, transact: transact}
}

// Apply brings the table to a model. The same model again means a look at what is really there. What it cannot do is told and holds
// up no version: the ports are locked to their MAC addresses without it, too.
func (p *Part) Apply(_ context.Context, m *mesh.Model) error {
	again := m == p.model
	p.model = m
	if p.first == nil {
		p.first = m
	}
	looks := again || p.said == nil
	if again {
		p.said = nil
	}
	err := p.bring(m)
	if looks {
		mended, failed := unlock()
		if err = errors.Join(err, failed); mended > 0 {
			p.env.Log.Info("ports are heard again whose forwarding entries were lost", "ports", mended)
		}
	}
	if err != nil {
		p.said = nil
		p.env.Log.Warn("containers may claim addresses that are not their own, will retry", "error", err)
		p.health.Set("voice", false, err.Error())
		return nil
	}
	p.health.Set("voice", true, "")
	return nil
}

// Forget has nothing to clear away.
func (p *Part) Forget() error { return nil }

func (p *Part) bring(m *mesh.Model) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	have, whole := p.said, p.said != nil
	if !whole {
		if have, whole, err = read(conn); err != nil {
			return fmt.Errorf("read what containers may say: %w", err)
		}
	}
	want := m.Voices(p.node)
	if m == p.first { // the last known tables may be older than what runs here: nobody is silenced by them
		maps.Copy(want, have)
	}
	changed, err := write(conn, whole, have, want)
	if err == nil && changed {
		err = p.transact(conn.Flush)
	}
	if err != nil {
		return fmt.Errorf("say what containers may say: %w", err)
	}
	p.said = want
	return nil
}

// write queues the steps from what is there to what is wanted.
func write(conn *nftables.Conn, whole bool, have, want map[kernel.Slot]struct{}) (changed bool, err error) {
	t := newTable()
	if !whole {
		conn.AddTable(t.table) // so that there is one to remove
		conn.DelTable(t.table)
		if err := t.make(conn); err != nil {
			return false, err
		}
		have = nil
	}
	gone, err := t.without(have, want)
	if err != nil {
		return false, err
	}
	fresh, err := t.without(want, have)
	if err != nil {
		return false, err
	}
	for i, set := range t.owners {
		for e := range slices.Chunk(gone[i], batch) {
			if err := conn.SetDeleteElements(set, e); err != nil {
				return false, err
			}
		}
		for e := range slices.Chunk(fresh[i], batch) {
			if err := conn.SetAddElements(set, e); err != nil {
				return false, err
			}
		}
		changed = changed || len(gone[i])+len(fresh[i]) > 0
	}
	return changed || !whole, nil
}

// without are the elements of a that are not in b, by family.
func (t table) without(a, b map[kernel.Slot]struct{}) (out [2][]nftables.SetElement, err error) {
	for slot := range a {
		if _, there := b[slot]; there {
			continue
		}
		for i := range t.owners {
			if t.owners[i].Name != slot.Set {
				continue
			}
			e, err := t.layouts[i].Element(kernel.Entry{Slot: slot})
			if err != nil {
				return out, err
			}
			out[i] = append(out[i], e)
		}
	}
	return out, nil
}

// read says what is in the sets, and whether the rules are there as they were made.
func read(conn *nftables.Conn) (said map[kernel.Slot]struct{}, whole bool, err error) {
	t := newTable()
	said = map[kernel.Slot]struct{}{}
	if _, err := conn.ListTableOfFamily(tableName, t.table.Family); err != nil {
		return said, false, ignoreAbsent(err)
	}
	for i, set := range t.owners {
		elements, err := conn.GetSetElements(set)
		if err != nil {
			return said, false, ignoreAbsent(err)
		}
		for _, e := range elements {
			said[kernel.Slot{Set: set.Name, Key: t.layouts[i].Key(e)}] = struct{}{}
		}
	}
	chains, err := conn.ListChainsOfTableFamily(t.table.Family)
	if err != nil {
		return said, false, err
	}
	there := map[string]*nftables.Chain{}
	for _, c := range chains {
		if c.Table.Name == tableName {
			there[c.Name] = c
		}
	}
	for _, c := range t.chains() {
		if is := there[c.Name]; is == nil || (is.Hooknum == nil) != (c.Hooknum == nil) {
			return said, false, nil
		}
		rules, err := conn.GetRules(t.table, c)
		if err != nil {
			return said, false, ignoreAbsent(err)
		}
		if !slices.Equal(comments(rules), t.comments(c)) {
			return said, false, nil
		}
	}
	return said, true, nil
}

func comments(rules []*nftables.Rule) []string {
	var out []string
	for _, r := range rules {
		text, _ := userdata.GetString(r.UserData, userdata.TypeComment)
		out = append(out, text)
	}
	return out
}

// ignoreAbsent takes the errors of what is not there: it is made.
func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Close removes the table.
func Close() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	t := newTable().table
	if _, err := conn.ListTableOfFamily(tableName, t.Family); err != nil {
		return ignoreAbsent(err)
	}
	conn.DelTable(t)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("let containers say what they like: %w", err)
	}
	return nil
}
