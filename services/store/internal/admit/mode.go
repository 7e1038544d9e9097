package admit

import (
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/cron"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// monitorTime is how long the end of a new task counts against its update, when the spec does not say.
const monitorTime = 5 * time.Second

// mode checks how many tasks there are to be, and fills it in. A service keeps the kind of mode that it was made with.
func (f *Faults) mode(s *state.Snapshot, id string, spec *typesv1.ServiceSpec) {
	switch m := spec.GetMode().(type) {
	case nil:
		spec.Mode = &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: new(uint64(1))}}
	case *typesv1.ServiceSpec_Replicated:
		if m.Replicated == nil {
			m.Replicated = &typesv1.Replicated{}
		}
		if m.Replicated.Replicas == nil {
			m.Replicated.Replicas = new(uint64(1))
		}
		f.Check(m.Replicated.GetReplicas() <= MaxReplicas, "replicas", "%d is not from 0 to %d", m.Replicated.GetReplicas(), MaxReplicas)
	case *typesv1.ServiceSpec_ReplicatedJob:
		if m.ReplicatedJob == nil {
			m.ReplicatedJob = &typesv1.ReplicatedJob{}
		}
		f.replicatedJob(m.ReplicatedJob)
	case *typesv1.ServiceSpec_Global, *typesv1.ServiceSpec_GlobalJob:
	}
	if spec.GetReplicated() == nil && spec.GetReplicatedJob() == nil {
		f.Check(spec.GetTask().GetPlacement().GetMaxReplicas() == 0, "placement.max_replicas", "has no meaning for a global service")
	}
	if old := s.Service(id); old != nil && old.GetSpec().GetMode() != nil {
		f.Check(ModeName(old.GetSpec()) == ModeName(spec), "mode", "is %s and cannot become %s; remove the service and create it anew",
			ModeName(old.GetSpec()), ModeName(spec))
	}
	isJob := spec.GetReplicatedJob() != nil || spec.GetGlobalJob() != nil
	if !isJob {
		f.Check(spec.GetJob() == nil, "job", "is for jobs, and the mode is %s", ModeName(spec))
		f.updates(spec)
		return
	}
	f.Check(spec.GetUpdate() == nil, "update", "is not for jobs: a new spec is a new run")
	f.Check(spec.GetRollback() == nil, "rollback", "is not for jobs: a new spec is a new run")
	f.Check(spec.MaxUnavailable == nil, "max_unavailable", "is not for jobs")
	f.job(spec.GetJob())
}

// ModeName is what people call the mode of a service.
func ModeName(spec *typesv1.ServiceSpec) string {
	switch spec.GetMode().(type) {
	case *typesv1.ServiceSpec_Global:
		return "global"
	case *typesv1.ServiceSpec_ReplicatedJob:
		return "replicated-job"
	case *typesv1.ServiceSpec_GlobalJob:
		return "global-job"
	}
	return "replicated"
}

func (f *Faults) replicatedJob(j *typesv1.ReplicatedJob) {
	if j.TotalCompletions == nil {
		j.TotalCompletions = new(max(j.GetMaxConcurrent(), 1))
	}
	if j.MaxConcurrent == nil {
		j.MaxConcurrent = new(j.GetTotalCompletions())
	}
	total, atOnce := j.GetTotalCompletions(), j.GetMaxConcurrent()
	f.Check(total >= 1 && total <= MaxReplicas, "replicated_job.total_completions", "%d is not from 1 to %d", total, MaxReplicas)
	f.Check(atOnce >= 1, "replicated_job.max_concurrent", "is 0: nothing would ever run")
}

func (f *Faults) job(j *typesv1.JobConfig) {
	f.duration("job.deadline", j.GetDeadline())
	schedule := j.GetSchedule()
	if schedule == nil {
		return
	}
	if _, err := cron.Parse(schedule.GetCron(), schedule.GetTimeZone()); err != nil {
		faults := []error{err}
		if several := interface{ Unwrap() []error }(nil); errors.As(err, &several) {
			faults = several.Unwrap()
		}
		for _, err := range faults {
			f.Add("job.schedule", "%s", err)
		}
	}
	if schedule.GetConcurrency() == typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_UNSPECIFIED {
		schedule.Concurrency = typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_FORBID
	}
	_, known := typesv1.ConcurrencyPolicy_name[int32(schedule.GetConcurrency())]
	f.Check(known, "job.schedule.concurrency", "%d is not known", schedule.GetConcurrency())
	f.duration("job.schedule.catch_up", schedule.GetCatchUp())
}

// updates checks how changes are rolled out and back, and fills it in.
func (f *Faults) updates(spec *typesv1.ServiceSpec) {
	if spec.Update == nil {
		spec.Update = &typesv1.UpdateConfig{}
	}
	f.update("update", spec.GetUpdate())
	if spec.GetRollback() != nil {
		f.update("rollback", spec.GetRollback())
		f.Check(spec.GetRollback().GetFailureAction() != typesv1.FailureAction_FAILURE_ACTION_ROLLBACK, "rollback.failure_action",
			"cannot be rollback: a rollback is not rolled back")
	}
	if m := spec.MaxUnavailable; m != nil {
		f.Check(*m >= 1, "max_unavailable", "is 0: nothing could ever be updated or moved")
	}
}

func (f *Faults) update(field string, u *typesv1.UpdateConfig) {
	if u.Parallelism == nil {
		u.Parallelism = new(uint64(1))
	}
	if u.GetOrder() == typesv1.UpdateOrder_UPDATE_ORDER_UNSPECIFIED {
		u.Order = typesv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST
	}
	if u.GetFailureAction() == typesv1.FailureAction_FAILURE_ACTION_UNSPECIFIED {
		u.FailureAction = typesv1.FailureAction_FAILURE_ACTION_PAUSE
	}
	if u.Monitor == nil {
		u.Monitor = durationpb.New(monitorTime)
	}
	_, known := typesv1.UpdateOrder_name[int32(u.GetOrder())]
	f.Check(known, field+".order", "%d is not known", u.GetOrder())
	_, known = typesv1.FailureAction_name[int32(u.GetFailureAction())]
	f.Check(known, field+".failure_action", "%d is not known", u.GetFailureAction())
	ratio := u.GetMaxFailureRatio()
	f.Check(ratio >= 0 && ratio <= 1, field+".max_failure_ratio", "%g is not from 0 to 1", ratio) // also what is no number
	f.duration(field+".delay", u.GetDelay())
	f.duration(field+".monitor", u.GetMonitor())
	f.duration(field+".progress_deadline", u.GetProgressDeadline())
}
