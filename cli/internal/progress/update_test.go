package progress_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/progress"
)

const complete = typesv1.TaskState_TASK_STATE_COMPLETE

// chapter is a service and its tasks from some time on.
type chapter struct {
	from  time.Duration
	svc   *typesv1.Service
	tasks []*controlv1.ListedTask
}

type chapters struct {
	start time.Time
	list  []chapter
}

func (c chapters) now() chapter {
	var at chapter
	for _, ch := range c.list {
		if time.Since(c.start) >= ch.from {
			at = ch
		}
	}
	return at
}

func (c chapters) GetService(context.Context, *controlv1.GetServiceRequest, ...grpc.CallOption) (*controlv1.GetServiceResponse, error) {
	return &controlv1.GetServiceResponse{Service: c.now().svc}, nil
}

func (c chapters) ListTasks(context.Context, *controlv1.ListTasksRequest, ...grpc.CallOption) (*controlv1.ListTasksResponse, error) {
	return &controlv1.ListTasksResponse{Tasks: c.now().tasks}, nil
}

func updated(state typesv1.UpdateState, leadsTo uint64, message string) *typesv1.Service {
	return &typesv1.Service{
		Meta: &typesv1.Meta{Id: "s"}, SpecVersion: 2, SpecHistory: []*typesv1.SpecRecord{{Version: 1}},
		Spec:         &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: "web"}, Mode: &typesv1.ServiceSpec_Replicated{}},
		UpdateStatus: &typesv1.UpdateStatus{State: state, SpecVersion: leadsTo, OfVersion: 2, Message: message},
	}
}

func job(state typesv1.JobState, message string) *typesv1.Service {
	two := uint64(2)
	return &typesv1.Service{
		Meta: &typesv1.Meta{Id: "s"}, SpecVersion: 1,
		Spec: &typesv1.ServiceSpec{
			Annotations: &typesv1.Annotations{Name: "once"},
			Mode:        &typesv1.ServiceSpec_ReplicatedJob{ReplicatedJob: &typesv1.ReplicatedJob{TotalCompletions: &two}},
		},
		JobStatus: &typesv1.JobStatus{SpecVersion: 1, State: state, Message: message},
	}
}

func global() *typesv1.Service {
	return &typesv1.Service{Meta: &typesv1.Meta{Id: "s"}, SpecVersion: 1, Spec: &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: "each"}, Mode: &typesv1.ServiceSpec_Global{Global: &typesv1.Global{}},
	}}
}

func onNode(node string, state typesv1.TaskState) *controlv1.ListedTask {
	l := task(0, 1, state, "")
	l.Task.Decided.ForNode, l.NodeHostname = node, node
	return l
}

func tasks(list ...*controlv1.ListedTask) []*controlv1.ListedTask { return list }

func TestHowAWatchEnds(t *testing.T) {
	began := updated(0, 0, "")
	began.UpdateStatus = nil
	again := updated(typesv1.UpdateState_UPDATE_STATE_PAUSED, 2, "update paused: it crashed")
	again.Spec.ResumeUpdate = 1
	planned := job(typesv1.JobState_JOB_STATE_WAITING, "")
	planned.Spec.Job = &typesv1.JobConfig{Schedule: &typesv1.Schedule{Cron: "@daily"}}
	rolling := updated(typesv1.UpdateState_UPDATE_STATE_ROLLBACK_STARTED, 1, "rollback: task x: exit code 1")
	back := updated(typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED, 1, "rollback completed")
	for name, r := range map[string]struct {
		list    []chapter
		updated bool
		fault   string
		says    []string
		least   time.Duration
	}{
		"an update that goes on is waited for though all tasks run": {
			list: []chapter{
				{0, began, tasks(task(1, 1, running, ""))},
				{1 * time.Second, updated(typesv1.UpdateState_UPDATE_STATE_UPDATING, 2, "update in progress"), tasks(task(1, 2, running, ""))},
				{6 * time.Second, updated(typesv1.UpdateState_UPDATE_STATE_COMPLETED, 2, "update completed"), tasks(task(1, 2, running, ""))},
			}, updated: true, least: 7 * time.Second, says: []string{"update in progress", "Service web converged"},
		},
		"a change of placement leaves tasks of the version before": {
			list: []chapter{{0, updated(typesv1.UpdateState_UPDATE_STATE_COMPLETED, 2, "update completed"), tasks(task(1, 1, running, ""))}},
			says: []string{"Service web converged"}, updated: true,
		},
		"an update that pauses is a fault": {
			list: []chapter{
				{0, began, tasks(task(1, 1, running, ""))},
				{time.Second, updated(typesv1.UpdateState_UPDATE_STATE_PAUSED, 2, "update paused: it crashed"), tasks(task(1, 2, failed, ""))},
			}, updated: true, fault: "update paused: it crashed",
		},
		"an update that was paused long ago is no fault of a scaling": {
			list: []chapter{{0, updated(typesv1.UpdateState_UPDATE_STATE_PAUSED, 2, "update paused: it crashed"), tasks(task(1, 1, running, ""))}},
			says: []string{"Service web converged"},
		},
		"a resumed update that pauses again is a fault": {
			list: []chapter{
				{0, again, tasks(task(1, 1, running, ""))},
				{time.Second, updated(typesv1.UpdateState_UPDATE_STATE_UPDATING, 2, "update in progress"), tasks(task(1, 2, preparing, ""))},
				{2 * time.Second, updated(typesv1.UpdateState_UPDATE_STATE_PAUSED, 2, "update paused: it crashed again"), tasks(task(1, 2, failed, ""))},
			}, fault: "it crashed again", least: 2 * time.Second,
		},
		"a rollback is watched to its end and is a fault": {
			list: []chapter{
				{0, began, tasks(task(1, 1, running, ""))},
				{1 * time.Second, rolling, tasks(task(1, 2, failed, ""))},
				{5 * time.Second, back, tasks(task(1, 1, running, ""))},
			}, updated: true, fault: "rolled back to version 1 (task x: exit code 1)", least: 6 * time.Second,
		},
		"a rollback by hand is what was asked for": {
			list: []chapter{
				{0, began, tasks(task(1, 1, running, ""))},
				{1 * time.Second, updated(typesv1.UpdateState_UPDATE_STATE_ROLLBACK_STARTED, 2, "rollback: asked for by hand"), tasks(task(1, 2, preparing, ""))},
				{5 * time.Second, updated(typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED, 2, "rollback completed"), tasks(task(1, 2, running, ""))},
			}, updated: true, least: 6 * time.Second, says: []string{"rollback: asked for by hand", "Service web converged"},
		},
		"a rollback of long ago is no fault of a scaling": {
			list: []chapter{{0, back, tasks(task(1, 1, running, ""))}}, says: []string{"Service web converged"},
		},
		"a global service has a line a node": {
			list: []chapter{{0, global(), tasks(onNode("m1", running), onNode("w1", preparing))}, {time.Second, global(), tasks(onNode("m1", running), onNode("w1", running))}},
			says: []string{"overall progress: 1 out of 2 tasks\nm1: running\nw1: preparing\n", "Service each converged"}, least: 2 * time.Second,
		},
		"a job is complete when the scheduler says so": {
			list: []chapter{
				{0, job(typesv1.JobState_JOB_STATE_RUNNING, ""), tasks(task(1, 1, complete, ""), task(2, 1, running, ""))},
				{3 * time.Second, job(typesv1.JobState_JOB_STATE_COMPLETED, ""), tasks(task(1, 1, complete, ""), task(2, 1, complete, ""))},
			}, says: []string{"job progress: 1 out of 2 complete, 1 running", "2/2: complete", "job complete"}, least: 3 * time.Second,
		},
		"a job that fails is a fault": {
			list: []chapter{{0, job(typesv1.JobState_JOB_STATE_FAILED, "0 of 2 complete, 2 given up"), nil}}, fault: "the job failed: 0 of 2 complete, 2 given up",
		},
		"a scheduled job is not waited for": {list: []chapter{{0, planned, nil}}, says: []string{"the job runs by its schedule"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for i := range r.list {
					r.list[i].svc = proto.CloneOf(r.list[i].svc)
				}
				c := chapters{start: time.Now(), list: r.list}
				var out bytes.Buffer
				w := progress.Watch{Services: c, Tasks: c, Out: &out, Updated: r.updated}
				err := w.Converge(t.Context(), "web")
				if (err != nil) != (r.fault != "") || err != nil && (!strings.Contains(err.Error(), r.fault) || !errs.Is(err, errs.Precondition)) {
					t.Errorf("ended with %v, wanted %q", err, r.fault)
				}
				for _, part := range r.says {
					if !strings.Contains(out.String(), part) {
						t.Errorf("%q is not in %q", part, out.String())
					}
				}
				if took := time.Since(c.start); took < r.least || took > r.least+3*time.Second {
					t.Errorf("it took %s, wanted about %s", took, r.least)
				}
			})
		})
	}
}
