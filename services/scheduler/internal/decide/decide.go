// Package decide is the scheduler's decision: from a snapshot and the cluster time to the writes that bring the cluster
// nearer to what people want.
//
// It owns the rules: which slots there are, which task fills each, on which node and with which addresses, when it starts
// and stops, and which words say why it does not run. It is pure: no I/O, no clock, no goroutine; time and new ids are
// arguments, and equal arguments give equal plans. It must never rest on anything but the snapshot: what one plan needs to
// know of an earlier one is in the objects.
//
// The rules lie below, each package built on those before it: place (which node), draft (what a decision has changed), fleet
// (the machines), visit (one service, and what may be done with a task), rollout (updates and the one floor), upkeep (what
// happens in a slot), mode (which slots there are).
//
// A Decider keeps an index beside the snapshot (package book), so that a decision costs what has changed; it decides as
// Decide does, which starts from nothing.
package decide

import (
	"time"

	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/draft"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/fleet"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/mode"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/visit"
)

// Batch bounds the objects that one plan changes, so that a transaction stays small and others get their turn.
const Batch = 200

// rounds is how often those that wait may look again within one decision: what one of them gives up may be what another waits
// for. A round in which nobody has cause to look is the last; more than two are rare.
const rounds = 4

// Plan is one transaction without its fence, and when to decide again if nothing changes before.
type Plan = draft.Plan

// Decide makes the next plan from nothing but the snapshot: also for what would happen if. Now is the cluster time; newID
// gives ids for new tasks.
func Decide(s *state.Snapshot, now time.Time, newID func() string) Plan {
	return NewDecider(Batch).Decide(s, now, newID)
}

// Decider decides again and again, and remembers what cannot have changed. It belongs to one goroutine.
type Decider struct {
	book  *book.Book
	batch int
	// last is the time of the last decision: one that goes back finds nothing that it remembers.
	last time.Time
}

// NewDecider is a decider that has seen nothing yet. Batch bounds the objects that a plan changes.
func NewDecider(batch int) *Decider { return &Decider{book: book.New(), batch: batch} }

// Decide makes the next plan, the same that the function Decide would make. It takes for granted that nothing of an earlier
// plan holds but what is in the snapshot.
func (d *Decider) Decide(s *state.Snapshot, now time.Time, newID func() string) Plan {
	if now.Before(d.last) {
		d.book = book.New()
	}
	d.last = now
	d.book.Advance(s)
	w := work{visit.Visitor{Fleet: fleet.New(draft.New(d.book, now, newID, d.batch))}}
	// Step 1: nodes first: tasks get addresses from their blocks in the same plan, and where they go depends on who is lost.
	w.Nodes()
	// Step 2: each service that is due, a higher priority first, then in the order of ids. A full batch ends between two slots,
	// never within one.
	turn := d.book.Turn(now)
	for !w.Full() {
		g := turn.Next()
		if g == nil {
			break
		}
		w.visit(g, false)
	}
	turn.End()
	// Step 3: what waits for a place, or says why it has none, looks again if others have taken or left places since; and so
	// does who had to make room.
	for left := rounds; left > 0 && w.lookAgain(); {
		left--
	}
	p := w.Plan()
	// Step 4: nothing of this has happened until it is committed.
	w.Undo()
	return p
}

// work is one decision under way.
type work struct{ visit.Visitor }

// lookAgain lets each one look that has cause to, in the order of the first pass, also who gets it by one before. It is false if
// nobody had.
func (w *work) lookAgain() (looked bool) {
	waiting := w.Book.Waiting()
	var at *book.Group
	for !w.Full() {
		for len(waiting) > 0 && at != nil && !book.Before(at, waiting[0]) {
			waiting = waiting[1:]
		}
		var next *book.Group
		if len(waiting) > 0 {
			next = waiting[0]
		}
		for g := range w.Disturbed {
			if (at == nil || book.Before(at, g)) && (next == nil || book.Before(g, next)) {
				next = g
			}
		}
		if next == nil {
			break
		}
		at = next
		if _, disturbed := w.Disturbed[next]; disturbed || w.Book.Awaits(next) {
			looked = true
			w.visit(next, true)
		}
	}
	return looked
}

// visit looks at one service. Again says that this decision has done so before.
func (w *work) visit(g *book.Group, again bool) {
	act := mode.Reconcile
	if g.Service == nil {
		act = mode.Remove
	}
	w.Look(g, again, act)
}
