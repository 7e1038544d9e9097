package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/cron"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/reason"
)

const (
	jobWaiting   = typesv1.JobState_JOB_STATE_WAITING
	jobRunning   = typesv1.JobState_JOB_STATE_RUNNING
	jobCompleted = typesv1.JobState_JOB_STATE_COMPLETED
	jobFailed    = typesv1.JobState_JOB_STATE_FAILED
	// punctual is how late a run may start that was not missed.
	punctual = 10 * time.Second
	// deadlinePassed is the reason of tasks that ran out of time.
	deadlinePassed = "the job's deadline has passed"
)

// tally is how the slots of one run are.
type tally struct{ slots, active, done, failed uint64 }

// reconcileJob brings a job nearer to its completions.
func (v *visit) reconcileJob() {
	was := v.svc.GetJobStatus()
	st := proto.CloneOf(was)
	if st == nil {
		st = &typesv1.JobStatus{}
	}
	// Step 1: begin a new run if one is due.
	v.beginRun(st)
	// Step 2: a run that has used up its time ends.
	late := v.overdue(st)
	// Step 3: what is there is mended, runs of the past are cleared away.
	v.eachSlot(func(s *book.Slot) { v.tendRun(st, s, late) })
	// Step 4: further slots, as many at a time as the spec allows.
	if st.GetState() == jobRunning && !late {
		v.fillRun(st)
	}
	if st.GetState() == jobCompleted && v.g.PerNode() {
		v.fillNodes(st.GetIteration()) // nodes that have come since
	}
	// Step 5: how far it is.
	if !v.w.full() {
		v.judge(st, late)
	}
	if st.GetState() != typesv1.JobState_JOB_STATE_UNSPECIFIED && !proto.Equal(was, st) {
		updated := proto.CloneOf(v.svc)
		updated.JobStatus = st
		v.w.restOn(typesv1.Kind_KIND_SERVICE, v.g.ID)
		v.w.putService(v.g, updated)
	}
}

// beginRun starts the run of a new spec version, or that which the schedule asks for.
func (v *visit) beginRun(st *typesv1.JobStatus) {
	schedule := v.svc.GetSpec().GetJob().GetSchedule()
	if schedule == nil {
		if st.GetSpecVersion() != v.svc.GetSpecVersion() {
			v.run(st, nil)
		}
		return
	}
	if st.GetState() == typesv1.JobState_JOB_STATE_UNSPECIFIED {
		st.State, st.Message = jobWaiting, "waits for its schedule"
	}
	plan, err := cron.Parse(schedule.GetCron(), schedule.GetTimeZone())
	if err != nil { // refused at creation; a person may have restored older data
		st.Message = err.Error()
		return
	}
	from := timeOf(st.GetScheduledAt())
	if from.IsZero() {
		from = timeOf(v.svc.GetMeta().GetCreatedAt())
	}
	due, next := plan.Last(from, v.w.now)
	v.at(next)
	if due.IsZero() {
		return
	}
	at := timestamppb.New(due)
	switch busy := st.GetState() == jobRunning; {
	case v.w.now.Sub(due) > max(punctual, schedule.GetCatchUp().AsDuration()):
		st.ScheduledAt, st.Message = at, "the run of "+due.Format(time.RFC3339)+" was missed"
	case busy && (schedule.GetConcurrency() == typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_FORBID ||
		schedule.GetConcurrency() == typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_UNSPECIFIED):
		st.ScheduledAt, st.Message = at, "the run of "+due.Format(time.RFC3339)+" was left out: the one before goes on"
	default:
		v.run(st, at)
	}
}

func (v *visit) run(st *typesv1.JobStatus, scheduled *timestamppb.Timestamp) {
	st.Iteration++
	st.SpecVersion, st.State, st.StartedAt, st.CompletedAt = v.svc.GetSpecVersion(), jobRunning, v.w.stamp, nil
	st.ScheduledAt, st.Message = scheduled, fmt.Sprintf("run %d goes on", st.GetIteration())
	v.disturb()
}

// disturb lets every slot be looked at: what holds for all of them has changed with time.
func (v *visit) disturb() {
	for _, s := range v.g.Slots {
		s.Calm, s.Steady = false, false
	}
}

// overdue reports whether a run has used up its time.
func (v *visit) overdue(st *typesv1.JobStatus) bool {
	limit := v.svc.GetSpec().GetJob().GetDeadline().AsDuration()
	if limit <= 0 || st.GetState() != jobRunning {
		return false
	}
	end := timeOf(st.GetStartedAt()).Add(limit)
	v.wake = v.w.earlier(v.wake, end)
	if v.w.now.Before(end) {
		return false
	}
	v.disturb()
	return true
}

// tendRun sees to one slot of a run.
func (v *visit) tendRun(st *typesv1.JobStatus, s *book.Slot, late bool) {
	schedule := v.svc.GetSpec().GetJob().GetSchedule()
	current := s.Key.Iteration == st.GetIteration()
	allowed := current || schedule.GetConcurrency() == typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_ALLOW && alive(s)
	switch {
	case !current && (schedule == nil || s.Key.Iteration+v.keptRuns() <= st.GetIteration() && !allowed):
		v.removeSlot(s, "a later run has begun")
	case !allowed || late:
		why := "a later run has begun"
		if late {
			why = deadlinePassed
		}
		for _, t := range slices.Clone(s.Tasks) {
			switch {
			case !book.Wanted(t):
			case t.GetObserved().GetState() == complete:
				v.change(t, func(d *typesv1.TaskDecided) { d.Reason = notRestarted + "it completed" })
			case dead(t):
				v.raise(t, shutdown, reason.Verdict(t))
			default:
				v.stop(t, why)
			}
		}
		v.reap(s)
	case s.Key.Node != "":
		v.tendOnNode(s)
	default:
		v.moveRun(s)
		v.tend(s)
	}
}

// keptRuns is how many runs of a schedule are remembered.
func (v *visit) keptRuns() uint64 {
	if n := v.historyLimit(); n >= 0 {
		return uint64(n)
	}
	return 1 << 62
}

// moveRun takes a job's tasks off nodes that are drained: a later one begins anew, without delay and without counting as an
// attempt.
func (v *visit) moveRun(s *book.Slot) {
	for _, t := range slices.Clone(s.Tasks) {
		n := v.w.book.Node(t.GetDecided().GetNodeId())
		if wanted(t) && !dead(t) && n.Drains() {
			v.replace(s, v.raise(t, shutdown, "moved: node "+n.Name()+" is drained"), order{startAfter: v.w.now}, "")
		}
	}
}

// tallyRun counts how the slots of the run are.
func (v *visit) tallyRun(st *typesv1.JobStatus) (c tally) {
	for _, s := range v.g.Slots {
		if s.Key.Iteration != st.GetIteration() {
			continue
		}
		c.slots++
		switch {
		case alive(s):
			c.active++
		case slices.ContainsFunc(s.Tasks, func(t *typesv1.Task) bool { return t.GetObserved().GetState() == complete }):
			c.done++
		case slices.ContainsFunc(s.Tasks, func(t *typesv1.Task) bool { return book.Wanted(t) && !filledForGood(t) }):
			c.active++ // about to be restarted
		case !v.stays(s): // its node is no longer meant
		default:
			c.failed++
		}
	}
	return c
}

// filledForGood reports whether a dead task fills its slot.
func filledForGood(t *typesv1.Task) bool {
	return strings.HasPrefix(t.GetDecided().GetReason(), notRestarted)
}

// totals are the completions that are asked for, and how many tasks may run at once.
func (v *visit) totals() (total, atOnce uint64) {
	j := v.svc.GetSpec().GetReplicatedJob()
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
func (v *visit) fillRun(st *typesv1.JobStatus) {
	if v.g.PerNode() {
		v.fillNodes(st.GetIteration())
		return
	}
	total, atOnce := v.totals()
	active := v.tallyRun(st).active
	for n := uint64(1); n <= total && active < atOnce && !v.w.full(); n++ {
		key := book.SlotKey{Iteration: st.GetIteration(), Number: n}
		if v.g.Slot(key) == nil {
			v.create(v.g.MakeSlot(key), order{version: v.target, startAfter: v.w.now})
			active++
		}
	}
}

// judge says how far the run is.
func (v *visit) judge(st *typesv1.JobStatus, late bool) {
	if s := st.GetState(); s != jobRunning && s != jobCompleted {
		return
	}
	c := v.tallyRun(st)
	total, _ := v.totals()
	if v.g.PerNode() {
		total = 0
		for _, n := range v.w.book.Nodes {
			if v.belongsOn(n) || v.g.Slot(book.SlotKey{Iteration: st.GetIteration(), Node: n.ID()}) != nil && n.Closed != place.Drained {
				total++
			}
		}
	}
	switch {
	case c.active > 0:
		if st.GetState() == jobCompleted { // a node has come since: it has as much time as the others had
			st.State, st.StartedAt, st.Message = jobRunning, v.w.stamp, fmt.Sprintf("run %d goes on", st.GetIteration())
			v.overdue(st) // asks again when that has passed
		}
		st.State, st.CompletedAt = jobRunning, nil
		if late {
			st.Message = deadlinePassed
		}
	case c.done >= total && st.GetState() == jobRunning:
		st.State, st.CompletedAt, st.Message = jobCompleted, v.w.stamp, fmt.Sprintf("%d of %d complete", c.done, total)
	case late:
		st.State, st.CompletedAt, st.Message = jobFailed, v.w.stamp, fmt.Sprintf("%s: %d of %d complete", deadlinePassed, c.done, total)
	case c.done+c.failed >= total && c.failed > 0:
		st.State, st.CompletedAt, st.Message = jobFailed, v.w.stamp, fmt.Sprintf("%d of %d complete, %d given up", c.done, total, c.failed)
	}
}
