package progress

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
)

// slot is what one slot of the service is at: a number, or a node where each has a task.
type slot struct {
	number  uint64
	node    string
	running bool // or, of a job, complete
	text    string
}

// view is the service at one moment.
type view struct {
	name    string
	job     bool
	want    uint64
	running uint64
	active  uint64 // tasks of a job that run now
	rolling bool   // an update goes on
	extra   bool   // tasks are still there that are wanted no more
	over    bool   // there is nothing more to wait for
	fault   error  // what to end with
	note    string
	slots   []slot
}

func (v view) converged() bool { return v.running == v.want && !v.extra && !v.rolling && !v.job }

// viewOf reads the service's state from its tasks. A slot runs when its task is of the version in force, should run, and
// does; a slot above what is asked for, or a task of an older spec, keeps the service from having converged.
func (w *Watch) viewOf(svc *typesv1.Service, tasks []*controlv1.ListedTask) view {
	v := view{name: svc.GetSpec().GetAnnotations().GetName(), want: 1}
	inForce, settled := w.readUpdate(svc, &v)
	slots := map[slotKey]*slot{}
	for _, l := range tasks {
		t := l.GetTask()
		if state.DesiredState(t) > typesv1.TaskState_TASK_STATE_RUNNING {
			continue
		}
		current := settled || t.GetSpecVersion() == inForce
		v.extra = v.extra || !current
		at, s := slotAt(slots, l), slotOf(l, current)
		if s.running || at.text == "" || !at.running && current {
			*at = s
		}
	}
	v.take(slots)
	if svc.GetSpec().GetGlobal() != nil {
		v.want = uint64(len(slots)) // the scheduler knows which nodes are meant
		return v
	}
	if r := svc.GetSpec().GetReplicated(); r != nil && r.Replicas != nil {
		v.want = r.GetReplicas()
	}
	v.extra = v.extra || uint64(len(slots)) > v.want
	return v
}

// readUpdate finds out how far the update of the present spec is, which version tasks should be of, and whether the tasks
// that are wanted are those that stay: after an update that changed only where tasks may run, they are of the version before.
func (w *Watch) readUpdate(svc *typesv1.Service, v *view) (inForce uint64, settled bool) {
	st, spec := svc.GetUpdateStatus(), svc.GetSpec()
	of := st.GetOfVersion()
	if of == 0 {
		of = st.GetSpecVersion()
	}
	if of != svc.GetSpecVersion() {
		v.rolling = len(svc.GetSpecHistory()) > 0 // the scheduler has not begun yet
		return svc.GetSpecVersion(), false
	}
	inForce = st.GetSpecVersion()
	v.note = st.GetMessage()
	switch st.GetState() {
	case typesv1.UpdateState_UPDATE_STATE_UPDATING:
		v.rolling, w.Updated = true, true
	case typesv1.UpdateState_UPDATE_STATE_ROLLBACK_STARTED:
		v.rolling, w.Updated, w.why = true, true, st.GetMessage()
	case typesv1.UpdateState_UPDATE_STATE_PAUSED, typesv1.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED:
		switch {
		case st.GetResumed() != spec.GetResumeUpdate():
			v.rolling = true // about to go on
		case spec.GetHoldUpdate():
			v.over, v.note = w.Updated, "the update is held; let it go on with --hold=false"
			return inForce, true
		case w.Updated:
			v.over, v.note, v.fault = true, "", errs.New(errs.Precondition, "%s", st.GetMessage())
		default:
			return inForce, true
		}
	case typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED:
		if w.Updated && inForce != svc.GetSpecVersion() {
			v.fault = errs.New(errs.Precondition, "the update was rolled back to version %d%s", inForce, because(w.why))
		}
		return inForce, true
	case typesv1.UpdateState_UPDATE_STATE_COMPLETED:
		return inForce, true
	}
	return inForce, false
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + strings.TrimPrefix(why, "rollback: ") + ")"
}

// jobView reads how far the last run of a job is.
func jobView(svc *typesv1.Service, tasks []*controlv1.ListedTask) view {
	v := view{name: svc.GetSpec().GetAnnotations().GetName(), job: true, want: 1}
	st := svc.GetJobStatus()
	if svc.GetSpec().GetJob().GetSchedule() != nil {
		v.over, v.note = true, "the job runs by its schedule"
		return v
	}
	slots := map[slotKey]*slot{}
	for _, l := range tasks {
		t := l.GetTask()
		done := t.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_COMPLETE
		if t.GetDecided().GetIteration() != st.GetIteration() || !done && state.DesiredState(t) > typesv1.TaskState_TASK_STATE_RUNNING {
			continue
		}
		if l.GetState() == typesv1.TaskState_TASK_STATE_RUNNING {
			v.active++
		}
		at, s := slotAt(slots, l), slotOf(l, true)
		s.running = done
		if done || !at.running {
			*at = s
		}
	}
	v.take(slots)
	if j := svc.GetSpec().GetReplicatedJob(); j != nil {
		v.want = max(j.GetTotalCompletions(), 1)
	} else {
		v.want = uint64(len(slots))
	}
	if st.GetSpecVersion() != svc.GetSpecVersion() {
		return v // the run of this spec has not begun
	}
	switch st.GetState() {
	case typesv1.JobState_JOB_STATE_COMPLETED:
		v.over, v.note = true, "job complete"
	case typesv1.JobState_JOB_STATE_FAILED:
		v.over, v.fault = true, errs.New(errs.Precondition, "the job failed: %s", st.GetMessage())
	}
	return v
}

type slotKey struct {
	number uint64
	node   string
}

// slotAt is the slot of a task, empty when the task is the first of it.
func slotAt(slots map[slotKey]*slot, l *controlv1.ListedTask) *slot {
	d := l.GetTask().GetDecided()
	key := slotKey{d.GetSlot(), d.GetForNode()}
	if slots[key] == nil {
		slots[key] = &slot{}
	}
	return slots[key]
}

func slotOf(l *controlv1.ListedTask, current bool) slot {
	d := l.GetTask().GetDecided()
	s := slot{number: d.GetSlot(), text: stateText(l)}
	if d.GetForNode() != "" {
		s.node = cmp.Or(l.GetNodeHostname(), d.GetForNode())
	}
	s.running = current && l.GetState() == typesv1.TaskState_TASK_STATE_RUNNING
	if !current {
		s.text = "to be replaced"
	}
	return s
}

// take puts the slots in order and counts those that run.
func (v *view) take(slots map[slotKey]*slot) {
	for _, s := range slots {
		v.slots = append(v.slots, *s)
		if s.running {
			v.running++
		}
	}
	slices.SortFunc(v.slots, func(a, b slot) int { return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.node, b.node)) })
}

func (v view) overall() string {
	if v.job {
		return fmt.Sprintf("job progress: %d out of %d complete, %d running", v.running, v.want, v.active)
	}
	text := fmt.Sprintf("overall progress: %d out of %d tasks", v.running, v.want)
	if v.rolling && v.note != "" {
		text += " (" + v.note + ")"
	}
	return text
}

func (v view) label(i int) string {
	if node := v.slots[i].node; node != "" {
		return node
	}
	return fmt.Sprintf("%d/%d", v.slots[i].number, max(v.want, v.slots[len(v.slots)-1].number))
}
