package docker

import (
	"fmt"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Mode says how many tasks. One of its fields is set.
type Mode struct {
	Replicated    *Replicated    `json:",omitempty"`
	Global        *struct{}      `json:",omitempty"`
	ReplicatedJob *ReplicatedJob `json:",omitempty"`
	GlobalJob     *struct{}      `json:",omitempty"`
}

// Replicated is a number of tasks.
type Replicated struct{ Replicas uint64 }

// ReplicatedJob is a number of completions.
type ReplicatedJob struct{ MaxConcurrent, TotalCompletions uint64 }

// Job is what jobs have and services have not.
type Job struct {
	Deadline     *int64    `json:",omitempty"`
	HistoryLimit *uint32   `json:",omitempty"`
	Schedule     *Schedule `json:",omitempty"`
}

// Schedule runs a job again and again.
type Schedule struct {
	Cron        string
	TimeZone    string `json:",omitempty"`
	Concurrency string
	CatchUp     *int64 `json:",omitempty"`
}

// JobStatus tells of a job's last run.
type JobStatus struct {
	JobIteration  Version
	LastExecution string `json:",omitempty"`
	CompletedAt   string `json:",omitempty"`
	State         string
	Message       string `json:",omitempty"`
}

func modeOf(s *typesv1.ServiceSpec) Mode {
	switch m := s.GetMode().(type) {
	case *typesv1.ServiceSpec_Global:
		return Mode{Global: &struct{}{}}
	case *typesv1.ServiceSpec_GlobalJob:
		return Mode{GlobalJob: &struct{}{}}
	case *typesv1.ServiceSpec_ReplicatedJob:
		total := max(m.ReplicatedJob.GetTotalCompletions(), 1)
		out := &ReplicatedJob{MaxConcurrent: total, TotalCompletions: total}
		if n := m.ReplicatedJob.GetMaxConcurrent(); n > 0 {
			out.MaxConcurrent = n
		}
		return Mode{ReplicatedJob: out}
	}
	out := &Replicated{Replicas: 1}
	if r := s.GetReplicated(); r != nil && r.Replicas != nil {
		out.Replicas = r.GetReplicas()
	}
	return Mode{Replicated: out}
}

// modeWord is the MODE column.
func modeWord(s *typesv1.ServiceSpec) string {
	switch s.GetMode().(type) {
	case *typesv1.ServiceSpec_Global:
		return "global"
	case *typesv1.ServiceSpec_GlobalJob:
		return "global job"
	case *typesv1.ServiceSpec_ReplicatedJob:
		return "replicated job"
	}
	return "replicated"
}

// replicas is the REPLICAS column: "3/3", "3/3 (max 1 per node)", or "1/2 (3/5 completed)" of a job.
func replicas(s *typesv1.ServiceSpec, c *controlv1.TaskCounts) string {
	out := fmt.Sprintf("%d/%d", c.GetRunning(), c.GetDesired())
	switch {
	case s.GetReplicatedJob() != nil:
		return out + fmt.Sprintf(" (%d/%d completed)", c.GetCompleted(), c.GetTotal())
	case s.GetGlobalJob() != nil:
		return out + fmt.Sprintf(" (%d/%d completed)", c.GetCompleted(), c.GetDesired()+c.GetCompleted())
	}
	if most := s.GetTask().GetPlacement().GetMaxReplicas(); most > 0 {
		out += fmt.Sprintf(" (max %d per node)", most)
	}
	return out
}

func jobOf(j *typesv1.JobConfig) *Job {
	if j == nil {
		return nil
	}
	out := &Job{Deadline: nanos(j.GetDeadline()), HistoryLimit: j.HistoryLimit}
	if s := j.GetSchedule(); s != nil {
		out.Schedule = &Schedule{Cron: s.GetCron(), TimeZone: s.GetTimeZone(), Concurrency: "forbid", CatchUp: nanos(s.GetCatchUp())}
		if s.GetConcurrency() != typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_UNSPECIFIED {
			out.Schedule.Concurrency = word(s.GetConcurrency().String(), "CONCURRENCY_POLICY_")
		}
	}
	return out
}

func jobStatusOf(s *typesv1.Service) *JobStatus {
	st := s.GetJobStatus()
	if st == nil {
		return nil
	}
	return &JobStatus{
		JobIteration: Version{st.GetIteration()}, LastExecution: stamp(st.GetStartedAt()), CompletedAt: stamp(st.GetCompletedAt()),
		State: word(st.GetState().String(), "JOB_STATE_"), Message: st.GetMessage(),
	}
}
