package book

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// agenda is which groups a decision may have cause to look at, so that it need not ask all of them.
type agenda struct {
	// listed are those that have changed, are asked each time or wait for a place, or whose time has come.
	listed line
	// wakes are those whose time is to come.
	wakes queue
	// waiting are those of which some task waits for a place.
	waiting map[*Group]struct{}
	// empty are those that may have neither a service nor tasks.
	empty []*Group
	// at is the group that has its turn.
	at *Group
}

func newAgenda() *agenda {
	return &agenda{
		listed:  line{late: queue{place: func(g *Group) *int { return &g.listed }, before: Before}},
		wakes:   queue{place: func(g *Group) *int { return &g.awake }, before: func(a, b *Group) bool { return a.Wake.Before(b.Wake) }},
		waiting: map[*Group]struct{}{},
	}
}

// Before is the order in which services are looked at: a higher priority first; among equals those whose tasks have one node
// alone to go to, for others may go elsewhere; then the order of ids.
func Before(a, b *Group) bool { return rank(a, b) < 0 }

func rank(a, b *Group) int {
	return cmp.Or(cmp.Compare(b.Priority(), a.Priority()), cmp.Compare(a.places(), b.places()), strings.Compare(a.ID, b.ID))
}

// stir has a group looked at.
func (a *agenda) stir(g *Group) {
	g.Dirty = true
	a.list(g)
}

func (a *agenda) list(g *Group) {
	if g != a.at {
		a.listed.add(g)
	}
}

func (a *agenda) drop(g *Group) {
	a.listed.remove(g)
	a.wakes.remove(g)
	delete(a.waiting, g)
}

// Outcome is how a look left a group.
type Outcome struct {
	Dirty    bool      // there is more to do
	Restless bool      // it has to be asked each time
	Waits    bool      // some task waits for a place
	Wake     time.Time // when it has to be asked at the latest; zero: never
	// Placement is the book's when the look began.
	Placement uint64
}

// Looked notes how a look left a group.
func (b *Book) Looked(g *Group, o Outcome) {
	a := b.agenda
	a.wakes.remove(g)
	if g.Outcome = o; !o.Wake.IsZero() {
		a.wakes.add(g)
	}
	if delete(a.waiting, g); o.Waits {
		a.waiting[g] = struct{}{}
	}
	if o.Dirty || o.Restless || o.Waits {
		a.list(g)
	}
}

// Due reports whether a group has to be looked at: it has changed, a deadline has come, or it waits for a place and
// something that placement rests on has changed.
func (b *Book) Due(g *Group, now time.Time) bool {
	return g.Dirty || g.Restless || b.Awaits(g) || g.overslept(now)
}

// Awaits reports whether a group waits for a place, and something that places rest on has changed since it was looked at.
func (b *Book) Awaits(g *Group) bool { return g.Waits && g.Placement != b.Placement }

func (g *Group) overslept(now time.Time) bool { return !g.Wake.IsZero() && !now.Before(g.Wake) }

// Turn is one pass over the groups that are due. Nothing is lost if it is given up halfway.
type Turn struct {
	book *Book
	now  time.Time
	had  []*Group
}

// Turn begins a pass at a time.
func (b *Book) Turn(now time.Time) *Turn {
	a := b.agenda
	for g := a.wakes.first(); g != nil && g.overslept(now); g = a.wakes.first() {
		a.wakes.remove(g)
		a.list(g)
	}
	return &Turn{book: b, now: now}
}

// Next is the next group that is due, nil if none is left. One that becomes due when its turn is over waits for the next pass.
func (t *Turn) Next() *Group {
	a := t.book.agenda
	for g := a.listed.first(); g != nil; g = a.listed.first() {
		a.listed.remove(g)
		t.had = append(t.had, g)
		if (a.at == nil || Before(a.at, g)) && t.book.Due(g, t.now) {
			a.at = g
			return g
		}
	}
	return nil
}

// End ends the pass. Who still has cause to be looked at has so in the next one. Who has come too early, since a pass may be of an
// earlier time than one before it that was given up, is woken again.
func (t *Turn) End() {
	t.book.agenda.at = nil
	for _, g := range t.had {
		switch {
		case g.Dirty || g.Restless || g.Waits || g.overslept(t.now):
			t.book.agenda.list(g)
		case !g.Wake.IsZero():
			t.book.agenda.wakes.add(g)
		}
	}
}

// Waiting are the groups that wait for a place, in the order in which they are looked at.
func (b *Book) Waiting() []*Group {
	return slices.SortedFunc(maps.Keys(b.agenda.waiting), rank)
}

// Wake is the first of all times at which a group has to be asked; zero when there is none.
func (b *Book) Wake() time.Time {
	if g := b.agenda.wakes.first(); g != nil {
		return g.Wake
	}
	return time.Time{}
}
