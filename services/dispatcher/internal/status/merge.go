package status

import (
	"cmp"
	"maps"
	"slices"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// transaction holds at most limit statuses that differ from what the store holds, fenced by the sessions that reported
// them. What is no news is taken out of the piles. Lines are the sessions in it, one a machine.
func (c *Committer) transaction(piles map[line]*pile, limit int) (tx *storev1.Transaction, lines map[string]line) {
	s := c.view.Snapshot()
	tx, lines = &storev1.Transaction{}, map[string]line{}
	for _, l := range slices.SortedFunc(maps.Keys(piles), newestFirst) {
		if _, newer := lines[l.node]; newer {
			continue // an older session of the machine: it is fenced off when its turn comes
		}
		for _, id := range slices.Sorted(maps.Keys(piles[l].tasks)) {
			if len(tx.GetPuts()) == limit {
				return tx, lines
			}
			t, observed := s.Task(id), piles[l].tasks[id]
			if t == nil || t.GetDecided().GetNodeId() != l.node || !later(observed, t.GetObserved()) {
				delete(piles[l].tasks, id)
				continue
			}
			if _, fenced := lines[l.node]; !fenced {
				lines[l.node] = l
				tx.Preconditions = append(tx.Preconditions, commit.Session(l.node, c.self, l.session))
			}
			news := &typesv1.Task{Meta: &typesv1.Meta{Id: id}, Observed: observed}
			tx.Puts = append(tx.Puts, commit.Put(state.Wrap(news), "observed"))
		}
	}
	return tx, lines
}

func newestFirst(a, b line) int {
	return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(b.session, a.session))
}

// acknowledge ends the piles of which nothing is left to be written.
func acknowledge(piles map[line]*pile) {
	for l, p := range piles {
		if len(p.tasks) == 0 {
			p.done()
			delete(piles, l)
		}
	}
}

// remove takes out what a transaction has written, of the lines that it was of.
func remove(piles map[line]*pile, lines map[string]line, puts []*storev1.Put) {
	written := make(map[string]struct{}, len(puts))
	for _, p := range puts {
		written[state.KeyOf(p.GetObject()).ID] = struct{}{}
	}
	for _, l := range lines {
		if p := piles[l]; p != nil {
			maps.DeleteFunc(p.tasks, func(id string, _ *typesv1.TaskObserved) bool {
				_, done := written[id]
				return done
			})
		}
	}
}

func removeTask(piles map[line]*pile, id string) (found bool) {
	for _, p := range piles {
		if _, ok := p.tasks[id]; ok {
			found = true
			delete(p.tasks, id)
		}
	}
	return found
}

// later orders observations by (attempt, state, seq). A nil one is the earliest.
func later(a, b *typesv1.TaskObserved) bool {
	switch {
	case a == nil:
		return false
	case b == nil:
		return true
	}
	return cmp.Or(cmp.Compare(a.GetAttempt(), b.GetAttempt()), cmp.Compare(a.GetState(), b.GetState()),
		cmp.Compare(a.GetSeq(), b.GetSeq())) > 0
}
