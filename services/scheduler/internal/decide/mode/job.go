package mode

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/cron"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/preempt"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/reason"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/visit"
)

const (
	jobWaiting   = typesv1.JobState_JOB_STATE_WAITING
	jobRunning   = typesv1.JobState_JOB_STATE_RUNNING
	jobCompleted = typesv1.JobState_JOB_STATE_COMPLETED
	jobFailed    = typesv1.JobState_JOB_STATE_FAILED
	// punctual is how late a run may start that was not missed.
	punctual = 10 * time.Second
	// laterRun is the reason of tasks of a run that is over because another has begun.
	laterRun = "a later run has begun"
	// deadlinePassed is the reason of tasks that ran out of time.
	deadlinePassed = "the job's deadline has passed"
)

// tally is how the slots of one run are.
type tally struct{ slots, active, done, failed uint64 }

// reconcileJob brings a job nearer to its completions.
func (m *mode) reconcileJob() {
	was := m.Service.GetJobStatus()
	st := proto.CloneOf(was)
	if st == nil {
		st = &typesv1.JobStatus{}
	}
	// Step 1: begin a new run if one is due.
	m.beginRun(st)
	// Step 2: a run that has used up its time ends.
	late := m.overdue(st)
	// Step 3: what is there is mended, runs of the past are cleared away.
	m.EachSlot(func(s *book.Slot) { m.tendRun(st, s, late) })
	// Step 4: further slots, as many at a time as the spec allows.
	if st.GetState() == jobRunning && !late {
		m.fillRun(st)
	}
	if st.GetState() == jobCompleted && m.Group.PerNode() {
		m.fillNodes(st.GetIteration()) // nodes that have come since
	}
	// Step 5: how far it is.
	if !m.Full() {
		m.judge(st, late)
	}
	if st.GetState() != typesv1.JobState_JOB_STATE_UNSPECIFIED && !proto.Equal(was, st) {
		m.EditService(func(s *typesv1.Service) { s.JobStatus = st })
	}
}

// beginRun starts the run of a new spec version, or that which the schedule asks for.
func (m *mode) beginRun(st *typesv1.JobStatus) {
	schedule := m.Service.GetSpec().GetJob().GetSchedule()
	if schedule == nil {
		if st.GetSpecVersion() != m.Service.GetSpecVersion() {
			m.run(st, nil)
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
	from := task.TimeOf(st.GetScheduledAt())
	if from.IsZero() {
		from = task.TimeOf(m.Service.GetMeta().GetCreatedAt())
	}
	due, next := plan.Last(from, m.Now)
	m.At(next)
	if due.IsZero() {
		return
	}
	at := timestamppb.New(due)
	switch busy := st.GetState() == jobRunning; {
	case m.Now.Sub(due) > max(punctual, schedule.GetCatchUp().AsDuration()):
		st.ScheduledAt, st.Message = at, "the run of "+due.Format(time.RFC3339)+" was missed"
	case busy && (schedule.GetConcurrency() == typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_FORBID ||
		schedule.GetConcurrency() == typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_UNSPECIFIED):
		st.ScheduledAt, st.Message = at, "the run of "+due.Format(time.RFC3339)+" was left out: the one before goes on"
	default:
		m.run(st, at)
	}
}

func (m *mode) run(st *typesv1.JobStatus, scheduled *timestamppb.Timestamp) {
	st.Iteration++
	st.SpecVersion, st.State, st.StartedAt, st.CompletedAt = m.Service.GetSpecVersion(), jobRunning, m.Stamp, nil
	st.ScheduledAt, st.Message = scheduled, fmt.Sprintf("run %d goes on", st.GetIteration())
	m.Disturb()
}

// overdue reports whether a run has used up its time.
func (m *mode) overdue(st *typesv1.JobStatus) bool {
	limit := m.Service.GetSpec().GetJob().GetDeadline().AsDuration()
	if limit <= 0 || st.GetState() != jobRunning {
		return false
	}
	end := task.TimeOf(st.GetStartedAt()).Add(limit)
	m.AtAny(end)
	if m.Now.Before(end) {
		return false
	}
	m.Disturb()
	return true
}

// tendRun sees to one slot of a run. What has no task any more of a run that is no longer remembered goes, also if it was this
// visit that ended it.
func (m *mode) tendRun(st *typesv1.JobStatus, s *book.Slot, late bool) {
	schedule := m.Service.GetSpec().GetJob().GetSchedule()
	current := s.Key.Iteration == st.GetIteration()
	allow := schedule.GetConcurrency() == typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_ALLOW
	forgotten := func() bool {
		return !current && s.Key.Iteration+m.keptRuns() <= st.GetIteration() && !(allow && task.AnyAlive(s))
	}
	switch {
	case !current && schedule == nil || forgotten():
		m.RemoveSlot(s, laterRun)
		return
	case s.Key.Node != "" && m.Book.Node(s.Key.Node) == nil:
		m.RemoveSlot(s, "its node was removed")
		return
	case late:
		m.endRun(s, deadlinePassed)
	case !current && !(allow && task.AnyAlive(s)):
		m.endRun(s, laterRun)
	case s.Key.Node != "":
		m.tendOnNode(s)
	default:
		m.moveRun(st, s)
		m.Tend(s)
	}
	if s = m.Group.Slot(s.Key); s != nil && forgotten() {
		m.RemoveSlot(s, laterRun)
	}
}

// endRun stops what a slot of a run has.
func (m *mode) endRun(s *book.Slot, why string) {
	for _, t := range s.Now() {
		switch {
		case !book.Wanted(t):
		case m.done(s, t):
		case task.Dead(t):
			m.Raise(t, task.Shutdown, reason.Verdict(t))
		default:
			m.Stop(t, why)
		}
	}
	m.Reap(s)
}

// done reports whether a task of a job has completed, and sees to it that it says so. That stays on record whatever becomes of its
// node or of the run.
func (m *mode) done(s *book.Slot, t *typesv1.Task) bool {
	if s.Key.Iteration == 0 || t.GetObserved().GetState() != task.Complete {
		return false
	}
	if !task.FilledForGood(t) {
		m.Change(t, func(d *typesv1.TaskDecided) { d.Reason = task.NotRestarted + "it completed" })
	}
	return true
}

// keptRuns is how many runs of a schedule are remembered.
func (m *mode) keptRuns() uint64 {
	if n := m.HistoryLimit(); n >= 0 {
		return uint64(n)
	}
	return 1 << 62
}

// moveRun takes a job's tasks off nodes that are drained: a later one begins anew, without delay and without counting as an
// attempt. So it does after one that had to make room, also while the one before that may come back with its lost node.
func (m *mode) moveRun(st *typesv1.JobStatus, s *book.Slot) {
	for _, t := range s.Now() {
		n := m.Book.Node(t.GetDecided().GetNodeId())
		if task.Wanted(t) && !task.Dead(t) && n.Drains() {
			m.Replace(s, m.Raise(t, task.Shutdown, "moved: node "+n.Name()+" is drained"), visit.Order{StartAfter: m.Now}, "")
		}
	}
	if n := len(s.Tasks); n > 0 && st.GetState() == jobRunning && !task.AnyWanted(s) && strings.HasPrefix(s.Tasks[n-1].GetDecided().GetReason(), preempt.Displaced) {
		m.Replace(s, s.Tasks[n-1], visit.Order{StartAfter: m.Now}, "")
	}
}
