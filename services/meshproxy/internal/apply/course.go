package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// course is the way of one model into the kernel: to what is wanted, from what it was brought to last or from what is really there.
type course struct {
	model     *mesh.Model
	self      mesh.Self
	published *mesh.Published
	look      bool // the kernel must be read

	want, have      kernel.Kernel
	planned, looked bool // they are known
}

// plan finds out where the way begins and ends, if that is not known.
func (l *Loop) plan(ctx context.Context, c *course) error {
	if !c.planned {
		var faults error
		if c.want, faults = c.model.Desired(c.self, c.published); faults != nil {
			l.env.Log.Warn("part of the tables left out", "error", faults)
		}
		c.planned = true
	}
	if c.looked {
		return nil
	}
	c.have = l.settled
	if c.look {
		var err error
		if c.have, err = l.tables.Read(ctx, slices.Collect(maps.Keys(c.want.Settings))); err != nil {
			return fmt.Errorf("read the kernel: %w", err)
		}
	}
	c.looked = true
	return nil
}

// announce has the administrator's chain be asked for ports before anybody listens on them: what comes in the moment between must not pass
// it by. The elements give way to those that the ports really get. Which of them another process has is not known yet, but of those
// that one had before.
//
// Where no tables are in force, and none can be, ports are opened nevertheless: there is no such chain.
func (l *Loop) announce(ctx context.Context, c *course, opening []mesh.Listener) error {
	if err := l.plan(ctx, c); err != nil {
		return err
	}
	opening = slices.DeleteFunc(slices.Clone(opening), func(p mesh.Listener) bool { return l.held[p] })
	fresh := map[kernel.Slot]string{}
	for _, e := range c.published.Announced(l.published, opening) {
		if !asked(c.have, e.Slot) {
			fresh[e.Slot] = e.Value
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	next := c.have
	if c.have.Rules.Mark == "" && !l.recalls { // no rules, or not ours: see withoutLoss
		next.Rules = c.want.Rules
	}
	if next.Entries = maps.Clone(c.have.Entries); next.Entries == nil {
		next.Entries = kernel.Entries{}
	}
	next.Entries["announced"] = kernel.NewPart(fresh)
	if err := l.tables.Apply(ctx, kernel.Diff(next, c.have)); err != nil {
		if c.have.Rules.Mark == "" && l.settled.Rules.Mark == "" {
			return nil //nolint:nilerr // the rest fails by it as well, and tells it
		}
		return err
	}
	c.have = next
	return nil
}

// asked says that the chain is asked for a port already, by this element or by that of one that the kernel carries.
func asked(k kernel.Kernel, at kernel.Slot) bool {
	for _, is4 := range []bool{true, false} {
		switch at.Set {
		case kernel.Family(kernel.SetListened, is4):
			return k.Has(at) || k.Has(kernel.Slot{Set: kernel.Family(kernel.SetPorts, is4), Key: at.Key})
		case kernel.Family(kernel.SetListenedAt, is4):
			return k.Has(at) || k.Has(kernel.Slot{Set: kernel.Family(kernel.SetBound, is4), Key: at.Key})
		}
	}
	return false
}

// program brings the kernel to what is wanted.
func (l *Loop) program(ctx context.Context, c *course) error {
	if err := l.plan(ctx, c); err != nil {
		return err
	}
	changes := kernel.Diff(c.want, c.have)
	if l.recalls {
		changes = withoutLoss(changes)
		defer l.suspect() // there may be more than is wanted
	}
	if err := l.tables.Apply(ctx, changes); err != nil {
		return err
	}
	l.settled, l.heavy = c.want, l.heavy || len(changes) >= heavySteps || c.look && c.have.Elements() >= heavySteps
	if len(changes) == 0 {
		return nil
	}
	l.env.Log.Info("tables changed", "version", mesh.Text(c.model.Version()), "steps", len(changes), "first", changes[0].String())
	return nil
}
