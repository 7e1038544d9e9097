package mode

import (
	"fmt"
	"slices"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/visit"
)

// tallyRun counts how the slots of the run are.
func (m *mode) tallyRun(st *typesv1.JobStatus) (c tally) {
	for _, s := range m.Group.Slots {
		if s.Key.Iteration != st.GetIteration() {
			continue
		}
		c.slots++
		switch {
		case task.AnyAlive(s):
			c.active++
		case slices.ContainsFunc(s.Tasks, func(t *typesv1.Task) bool { return t.GetObserved().GetState() == task.Complete }):
			c.done++
		case slices.ContainsFunc(s.Tasks, func(t *typesv1.Task) bool { return book.Wanted(t) && !task.FilledForGood(t) }):
			c.active++ // about to be restarted
		case !m.Stays(s): // its node is no longer meant
		default:
			c.failed++
		}
	}
	return c
}

// totals are the completions that are asked for, and how many tasks may run at once.
func (m *mode) totals() (total, atOnce uint64) {
	j := m.Service.GetSpec().GetReplicatedJob()
	total = 1
	if j != nil && j.TotalCompletions != nil {
		total = j.GetTotalCompletions()
	}
	atOnce = total
	if j != nil && j.MaxConcurrent != nil && j.GetMaxConcurrent() > 0 {
		atOnce = j.GetMaxConcurrent()
	}
	return total, atOnce
}

// fillRun makes tasks in the lowest free slots of the run.
func (m *mode) fillRun(st *typesv1.JobStatus) {
	if m.Group.PerNode() {
		m.fillNodes(st.GetIteration())
		return
	}
	total, atOnce := m.totals()
	active := m.tallyRun(st).active
	for n := uint64(1); n <= total && active < atOnce && !m.Full(); n++ {
		key := book.SlotKey{Iteration: st.GetIteration(), Number: n}
		if m.Group.Slot(key) == nil {
			m.Create(m.Group.MakeSlot(key), visit.Order{Version: m.Target, StartAfter: m.Now})
			active++
		}
	}
}

// judge says how far the run is.
func (m *mode) judge(st *typesv1.JobStatus, late bool) {
	if s := st.GetState(); s != jobRunning && s != jobCompleted {
		return
	}
	c := m.tallyRun(st)
	total, _ := m.totals()
	if m.Group.PerNode() {
		total = 0
		for _, n := range m.Book.Nodes {
			s := m.Group.Slot(book.SlotKey{Iteration: st.GetIteration(), Node: n.ID()})
			if m.BelongsOn(n) || s != nil && (n.Closed != place.Drained || m.completed(s)) { // what has completed counts wherever it was
				total++
			}
		}
	}
	switch {
	case c.active > 0:
		if st.GetState() == jobCompleted { // a node has come since: it has as much time as the others had
			st.State, st.StartedAt, st.Message = jobRunning, m.Stamp, fmt.Sprintf("run %d goes on", st.GetIteration())
			m.overdue(st) // asks again when that has passed
		}
		st.State, st.CompletedAt = jobRunning, nil
		if late {
			st.Message = deadlinePassed
		}
	case st.GetState() != jobRunning: // what is complete stays so: slots given up beyond a total that was lowered do not count
	case c.done >= total:
		st.State, st.CompletedAt, st.Message = jobCompleted, m.Stamp, fmt.Sprintf("%d of %d complete", c.done, total)
	case late:
		st.State, st.CompletedAt, st.Message = jobFailed, m.Stamp, fmt.Sprintf("%s: %d of %d complete", deadlinePassed, c.done, total)
	case c.done+c.failed >= total && c.failed > 0:
		st.State, st.CompletedAt, st.Message = jobFailed, m.Stamp, fmt.Sprintf("%d of %d complete, %d given up", c.done, total, c.failed)
	}
}
