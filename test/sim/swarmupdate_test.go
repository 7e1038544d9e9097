package sim_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/agenttest"
)

func replicatedJob(s *swarm) {
	for _, m := range s.Machines[3:] {
		m.Runtime.Behave("registry.test/job:1", agenttest.Behaviour{RunFor: 2 * time.Second})
	}
	s.must(s.create("job", 0, func(spec *typesv1.ServiceSpec) {
		spec.Task.Container.Image = "registry.test/job:1"
		spec.Mode = &typesv1.ServiceSpec_ReplicatedJob{ReplicatedJob: &typesv1.ReplicatedJob{
			MaxConcurrent: proto.Uint64(2), TotalCompletions: proto.Uint64(7)}}
	}))
	for run := uint64(1); run <= 2; run++ {
		s.Until("seven are complete, and never more than two run", time.Minute, func() string {
			tasks, err := s.o.ListTasks("job", false)
			s.must(err)
			active, complete := 0, 0
			for _, t := range tasks {
				switch {
				case t.GetTask().GetDecided().GetIteration() != run:
				case t.GetState() == typesv1.TaskState_TASK_STATE_COMPLETE:
					complete++
				case !state.Terminal(t.GetState()):
					active++
				}
			}
			if active > 2 {
				s.t.Errorf("%d tasks are active", active)
			}
			if complete != 7 {
				return fmt.Sprintf("run %d: %d complete", run, complete)
			}
			return ""
		})
		if run == 1 {
			s.must(s.o.Update("job", func(spec *typesv1.ServiceSpec) { spec.Task.ForceUpdate++ }))
		}
	}
	s.Until("the status says so", 10*time.Second, func() string {
		if j := s.service("job").GetJobStatus(); j.GetIteration() != 2 || j.GetState() != typesv1.JobState_JOB_STATE_COMPLETED {
			return j.String()
		}
		return ""
	})
}

func rolling(parallelism uint64) *typesv1.UpdateConfig {
	return &typesv1.UpdateConfig{Parallelism: &parallelism, Delay: durationpb.New(2 * time.Second), Monitor: durationpb.New(time.Second)}
}

// batches watches an update, and a rollback by hand: how many tasks of the new image are wanted rises by the parallelism of each
// at most, and reaches it.
func batches(s *swarm) {
	s.up("web", 5, func(spec *typesv1.ServiceSpec) { spec.Update, spec.Rollback = rolling(2), rolling(3) })
	seen := func(image string, atOnce int) {
		counts := []int{0}
		s.Until("all are "+image, time.Minute, func() string {
			tasks, err := s.o.ListTasks("web", false)
			s.must(err)
			n := 0
			for _, t := range tasks {
				d := t.GetTask().GetDecided()
				if d.GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && imageOf(s.service("web"), t.GetTask().GetSpecVersion()) == image {
					n++
				}
			}
			if counts = append(counts, n); n < 5 {
				return fmt.Sprint(n)
			}
			return ""
		})
		most := 0
		for i, n := range counts[1:] {
			most = max(most, n-counts[i])
		}
		if most != atOnce {
			s.t.Errorf("the tasks of %s went %v: %d slots at a time are to be replaced", image, slices.Compact(counts), atOnce)
		}
	}
	s.must(s.o.Update("web", func(spec *typesv1.ServiceSpec) { spec.Task.Container.Image = "registry.test/micro:1.1.0" }))
	seen("registry.test/micro:1.1.0", 2)
	s.o.Converge("web", 5, time.Minute)
	_, err := s.o.Services.RollbackService(s.ctx(), &controlv1.RollbackServiceRequest{Service: "web"})
	s.must(err)
	seen("registry.test/micro:1.0.0", 3)
	s.o.Converge("web", 5, time.Minute)
}

func imageOf(svc *typesv1.Service, version uint64) string {
	return state.SpecOf(svc, version).GetContainer().GetImage()
}

// healthGates: while the new task is not healthy the old one serves; one that becomes unhealthy fails and says why.
func healthGates(s *swarm) {
	sick := func(image string, is bool) {
		for _, m := range s.Machines[3:] {
			m.Runtime.SetSick(image, is)
		}
	}
	const next = "registry.test/micro:1.1.0"
	sick(next, true)
	s.up("web", 3, func(spec *typesv1.ServiceSpec) {
		spec.Update = rolling(1)
		spec.Update.Order = typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST
		spec.Task.Container.Healthcheck = &typesv1.Probe{Test: []string{"CMD", "look"}, Interval: durationpb.New(time.Second), Retries: 60}
	})
	before := s.o.TaskIDs("web")
	s.must(s.o.Update("web", func(spec *typesv1.ServiceSpec) { spec.Task.Container.Image = next }))
	s.Until("the new task is starting", 20*time.Second, func() string {
		tasks, err := s.o.ListTasks("web", false)
		s.must(err)
		for _, t := range tasks {
			if t.GetState() == typesv1.TaskState_TASK_STATE_STARTING {
				return ""
			}
		}
		return "none is"
	})
	time.Sleep(10 * time.Second)
	if now := s.o.TaskIDs("web"); !slices.Equal(now, before) {
		s.t.Errorf("while the new task is not healthy %v run, want %v", now, before)
	}
	sick(next, false)
	s.Until("all are new", time.Minute, func() string {
		if st := s.service("web").GetUpdateStatus(); st.GetState() != typesv1.UpdateState_UPDATE_STATE_COMPLETED {
			return st.String()
		}
		return s.o.Wrong("web", 3)
	})
	sick(next, true)
	s.Until("one fails and says why", 2*time.Minute, func() string {
		tasks, err := s.o.ListTasks("web", false)
		s.must(err)
		for _, t := range tasks {
			if t.GetState() == typesv1.TaskState_TASK_STATE_FAILED && strings.Contains(t.GetReason(), "health") {
				return ""
			}
		}
		return "none has"
	})
	sick(next, false)
	s.o.Converge("web", 3, time.Minute)
}

func failedUpdate(s *swarm) {
	s.up("web", 5, func(spec *typesv1.ServiceSpec) {
		spec.Update = rolling(1)
		spec.Update.MaxFailureRatio = 0.25
		spec.Update.FailureAction = typesv1.FailureAction_FAILURE_ACTION_PAUSE
	})
	s.must(s.o.Update("web", func(spec *typesv1.ServiceSpec) { spec.Task.Container.Image = crashing }))
	s.Until("the update pauses", time.Minute, func() string {
		if st := s.service("web").GetUpdateStatus(); st.GetState() != typesv1.UpdateState_UPDATE_STATE_PAUSED {
			return st.String()
		}
		return ""
	})
	if tasks, err := s.o.ListTasks("web", true); err != nil || len(tasks) < 3 {
		s.t.Errorf("%d of the old tasks run: %v", len(tasks), err)
	}
	_, err := s.o.Services.RollbackService(s.ctx(), &controlv1.RollbackServiceRequest{Service: "web"})
	s.must(err)
	s.o.Converge("web", 5, time.Minute)
}

func rebalances(s *swarm) {
	s.node("n03", func(n *typesv1.NodeSpec) { n.Availability = typesv1.Availability_AVAILABILITY_DRAIN })
	s.up("web", 6, nil)
	s.placed("web", map[string]int{"n01": 3, "n02": 3})
	s.node("n03", func(n *typesv1.NodeSpec) { n.Availability = typesv1.Availability_AVAILABILITY_ACTIVE })
	s.must(s.o.Update("web", func(spec *typesv1.ServiceSpec) { spec.Rebalance = &typesv1.Rebalance{Request: 1} }))
	s.Until("it is even, and at least N-1 run all along", time.Minute, func() string {
		got := s.on("web")
		if n := got["n01"] + got["n02"] + got["n03"]; n < 5 {
			s.t.Errorf("%d of 6 run", n)
		}
		if got["n01"] != 2 || got["n02"] != 2 || got["n03"] != 2 {
			return fmt.Sprint(got)
		}
		return ""
	})
	s.o.Converge("web", 6, 20*time.Second)
}

func noAddress(s *swarm) {
	_, err := s.o.Networks.CreateNetwork(s.ctx(), &controlv1.CreateNetworkRequest{Spec: &typesv1.NetworkSpec{
		Annotations: &typesv1.Annotations{Name: "tiny"}, Driver: "overlay", Subnets: []string{"10.77.0.0/29"}}})
	s.must(err)
	s.must(s.create("web", 12, func(spec *typesv1.ServiceSpec) { spec.Task.Networks = []*typesv1.NetworkAttachment{{Target: "tiny"}} }))
	s.waits("web", "network tiny")
	s.must(s.o.Scale("web", 3))
	s.o.Converge("web", 3, 20*time.Second)
}

func blockedUpdate(s *swarm) {
	s.up("web", 3, func(spec *typesv1.ServiceSpec) {
		spec.Update = rolling(1)
		spec.Update.ProgressDeadline = durationpb.New(30 * time.Second)
		spec.Update.FailureAction = typesv1.FailureAction_FAILURE_ACTION_ROLLBACK
	})
	s.must(s.o.Update("web", func(spec *typesv1.ServiceSpec) {
		spec.Task.Resources = &typesv1.ResourceRequirements{Reservations: &typesv1.Resources{MemoryBytes: 64 << 30}}
	}))
	s.Until("the update ends by its deadline", 2*time.Minute, func() string {
		st := s.service("web").GetUpdateStatus()
		if st.GetState() != typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED {
			return st.String()
		}
		return ""
	})
	if why := s.service("web").GetUpdateStatus().GetMessage(); strings.Contains(why, "in progress") {
		s.t.Errorf("its status says %q", why)
	}
	s.o.Converge("web", 3, 20*time.Second)
}

func crashLoop(s *swarm) {
	s.must(s.create("loop", 2, func(spec *typesv1.ServiceSpec) { spec.Task.Container.Image = crashing }))
	s.must(s.create("job", 0, func(spec *typesv1.ServiceSpec) {
		spec.Task.Container.Image = crashing
		spec.Mode = &typesv1.ServiceSpec_ReplicatedJob{ReplicatedJob: &typesv1.ReplicatedJob{TotalCompletions: proto.Uint64(1)}}
		spec.Job = &typesv1.JobConfig{HistoryLimit: proto.Uint32(3)}
	}))
	const limit = 5 // of the cluster
	most := map[string]int{}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		for _, name := range []string{"loop", "job"} {
			tasks, err := s.o.ListTasks(name, false)
			s.must(err)
			ended := 0
			for _, t := range tasks {
				if d := t.GetTask().GetDecided(); state.Terminal(t.GetState()) && d.GetDesired() > typesv1.TaskState_TASK_STATE_RUNNING {
					ended++
				}
			}
			most[name] = max(most[name], ended)
		}
		time.Sleep(500 * time.Millisecond)
	}
	if most["loop"] != 2*limit || most["job"] != 3 {
		s.t.Errorf("at most %v ended tasks are remembered, want %d and 3", most, 2*limit)
	}
	for _, name := range []string{"loop", "job"} {
		_, err := s.o.Services.DeleteService(s.ctx(), &controlv1.DeleteServiceRequest{Service: name})
		s.must(err)
	}
}
