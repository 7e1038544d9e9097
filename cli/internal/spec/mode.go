package spec

import (
	"google.golang.org/protobuf/types/known/durationpb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// jobs defines the flags that only jobs know.
func (f *Flags) jobs() {
	f.set.String("max-concurrent", "", "tasks of a replicated job at once (default: all)")
	f.set.String("schedule", "", "when to run a job again and again: five fields of cron, or @hourly, @daily, …; empty: once")
	f.set.String("time-zone", "", "time zone of the schedule: Europe/Berlin (default UTC)")
	f.set.String("concurrency", "", "when a run is due and the one before goes on: forbid, allow or replace (default forbid)")
	f.set.String("catch-up", "", "how late a run may start that was missed; 0: not at all")
	f.set.String("deadline", "", "time after which what is left of a run is given up; 0: none")
	f.set.String("history-limit", "", "ended tasks of a job to keep, a slot")
}

// createMode sets the mode of a new service.
func (f *Flags) createMode(s *typesv1.ServiceSpec) {
	switch mode := f.text("mode"); mode {
	case "replicated":
		one := uint64(1)
		s.Mode = &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: &one}}
	case "global":
		s.Mode = &typesv1.ServiceSpec_Global{Global: &typesv1.Global{}}
	case "replicated-job":
		s.Mode = &typesv1.ServiceSpec_ReplicatedJob{ReplicatedJob: &typesv1.ReplicatedJob{}}
	case "global-job":
		s.Mode = &typesv1.ServiceSpec_GlobalJob{GlobalJob: &typesv1.GlobalJob{}}
	default:
		f.faults.Add("mode", "%q is not replicated, global, replicated-job or global-job", mode)
	}
}

// applyMode sets the figures of a mode. A mode that has no such figure has no place for it in the spec either.
func (f *Flags) applyMode(s *typesv1.ServiceSpec) {
	if f.set.Changed("replicas") {
		if n, ok := f.count("replicas"); ok {
			f.faults.Merge("replicas", SetReplicas(s, n))
		}
	}
	if f.set.Changed("max-concurrent") {
		n, ok := f.count("max-concurrent")
		j := s.GetReplicatedJob()
		f.faults.Check(j != nil, "max-concurrent", "is for replicated jobs")
		if ok && j != nil {
			j.MaxConcurrent = &n
		}
	}
}

// SetReplicas sets the number of tasks, of a replicated job the completions. A job whose tasks all ran at once still lets all
// run at once.
func SetReplicas(s *typesv1.ServiceSpec, n uint64) error {
	switch m := s.GetMode().(type) {
	case *typesv1.ServiceSpec_Replicated:
		m.Replicated.Replicas = &n
	case *typesv1.ServiceSpec_ReplicatedJob:
		if m.ReplicatedJob.MaxConcurrent != nil && m.ReplicatedJob.GetMaxConcurrent() == m.ReplicatedJob.GetTotalCompletions() {
			m.ReplicatedJob.MaxConcurrent = nil
		}
		m.ReplicatedJob.TotalCompletions = &n
	case nil:
		s.Mode = &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: &n}}
	default:
		return errs.New(errs.Invalid, "has no meaning for a global service: there is one task on each node that fits")
	}
	return nil
}

func (f *Flags) applyJob(s *typesv1.ServiceSpec) {
	if !f.any("schedule", "time-zone", "concurrency", "catch-up", "deadline", "history-limit") {
		return
	}
	if s.Job == nil {
		s.Job = &typesv1.JobConfig{}
	}
	f.duration("deadline", func(d *durationpb.Duration) { s.Job.Deadline = d })
	if f.set.Changed("history-limit") {
		if n, ok := f.count("history-limit"); ok {
			limit := uint32(min(n, 1<<31))
			s.Job.HistoryLimit = &limit
		}
	}
	f.applySchedule(s.Job)
}

func (f *Flags) applySchedule(j *typesv1.JobConfig) {
	if !f.any("schedule", "time-zone", "concurrency", "catch-up") {
		return
	}
	if f.set.Changed("schedule") && f.text("schedule") == "" {
		f.faults.Check(!f.any("time-zone", "concurrency", "catch-up"), "schedule", "is empty, so there is nothing to set of it")
		j.Schedule = nil
		return
	}
	if j.Schedule == nil {
		j.Schedule = &typesv1.Schedule{}
	}
	if f.set.Changed("schedule") {
		j.Schedule.Cron = f.text("schedule")
	}
	if f.set.Changed("time-zone") {
		j.Schedule.TimeZone = f.text("time-zone")
	}
	if f.set.Changed("concurrency") {
		j.Schedule.Concurrency = choice(f, "concurrency", []string{"forbid", "allow", "replace"}, map[string]typesv1.ConcurrencyPolicy{
			"forbid": typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_FORBID, "allow": typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_ALLOW,
			"replace": typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_REPLACE,
		})
	}
	f.duration("catch-up", func(d *durationpb.Duration) { j.Schedule.CatchUp = d })
}
