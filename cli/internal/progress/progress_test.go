package progress_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/progress"
)

// story is a service over time: each moment holds from its time on.
type story struct {
	start   time.Time
	want    uint64
	moments []moment
	looks   int
}

type moment struct {
	from  time.Duration
	tasks []*controlv1.ListedTask
	err   error
}

func (s *story) now() moment {
	var at moment
	for _, m := range s.moments {
		if time.Since(s.start) >= m.from {
			at = m
		}
	}
	return at
}

func (s *story) GetService(context.Context, *controlv1.GetServiceRequest, ...grpc.CallOption) (*controlv1.GetServiceResponse, error) {
	s.looks++
	return &controlv1.GetServiceResponse{Service: &typesv1.Service{
		Meta: &typesv1.Meta{Id: "s"}, SpecVersion: 2,
		Spec: &typesv1.ServiceSpec{
			Annotations: &typesv1.Annotations{Name: "web"},
			Mode:        &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: &s.want}},
		},
	}}, s.now().err
}

func (s *story) ListTasks(_ context.Context, req *controlv1.ListTasksRequest, _ ...grpc.CallOption) (*controlv1.ListTasksResponse, error) {
	// One task a page.
	tasks := s.now().tasks
	i := len(req.GetPageToken())
	if i >= len(tasks) {
		return &controlv1.ListTasksResponse{}, s.now().err
	}
	resp := &controlv1.ListTasksResponse{Tasks: tasks[i : i+1]}
	if i+1 < len(tasks) {
		resp.NextPageToken = strings.Repeat("x", i+1)
	}
	return resp, s.now().err
}

func task(slot, version uint64, state typesv1.TaskState, reason string) *controlv1.ListedTask {
	return &controlv1.ListedTask{State: state, Reason: reason, Task: &typesv1.Task{
		SpecVersion: version, Decided: &typesv1.TaskDecided{Slot: slot, Desired: typesv1.TaskState_TASK_STATE_RUNNING},
		Observed: &typesv1.TaskObserved{State: state},
	}}
}

const (
	running   = typesv1.TaskState_TASK_STATE_RUNNING
	preparing = typesv1.TaskState_TASK_STATE_PREPARING
	failed    = typesv1.TaskState_TASK_STATE_FAILED
)

// watch returns what a person sees and how long it took.
func watch(t *testing.T, s *story) (string, time.Duration, error) {
	t.Helper()
	var out bytes.Buffer
	s.start = time.Now()
	w := progress.Watch{Services: s, Tasks: s, Out: &out}
	err := w.Converge(t.Context(), "web")
	return out.String(), time.Since(s.start), err
}

func TestATaskThatDiesWhileItIsVerifiedIsNotStable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, took, err := watch(t, &story{want: 1, moments: []moment{
			{from: 0, tasks: []*controlv1.ListedTask{task(1, 2, running, "")}},
			{from: 700 * time.Millisecond, tasks: []*controlv1.ListedTask{task(1, 2, failed, "exit code 1")}},
			{from: 3 * time.Second, tasks: []*controlv1.ListedTask{task(1, 2, running, "")}},
		}})
		want := "overall progress: 1 out of 1 tasks\n1/1: running\nverify: Waiting 1 second to verify that tasks are stable...\n" +
			"overall progress: 0 out of 1 tasks\n1/1: failed (exit code 1)\noverall progress: 1 out of 1 tasks\n1/1: running\n" +
			"verify: Waiting 1 second to verify that tasks are stable...\nverify: Service web converged\n"
		if out != want || err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if took < 4*time.Second || took > 4500*time.Millisecond {
			t.Errorf("it took %s, wanted 1 s after the last start", took)
		}
	})
}

func TestTasksThatMustGoKeepAServiceFromConverging(t *testing.T) {
	for name, before := range map[string][]*controlv1.ListedTask{
		"a slot too many":          {task(1, 2, running, ""), task(5, 2, running, "")},
		"a task of the older spec": {task(1, 1, running, "")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, took, err := watch(t, &story{want: 1, moments: []moment{
					{from: 0, tasks: before}, {from: 5 * time.Second, tasks: []*controlv1.ListedTask{task(1, 2, running, "")}},
				}})
				if took < 6*time.Second || err != nil {
					t.Errorf("converged after %s, %v", took, err)
				}
			})
		})
	}
}

func TestAClusterThatChoosesALeaderIsWaitedForButNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errs.New(errs.Unavailable, "no leader")
		out, _, err := watch(t, &story{want: 1, moments: []moment{
			{from: 0, tasks: []*controlv1.ListedTask{task(1, 2, preparing, "")}}, {from: time.Second, err: gone},
			{from: 20 * time.Second, tasks: []*controlv1.ListedTask{task(1, 2, running, "")}},
		}})
		if err != nil || strings.Count(out, "waiting for the cluster: no leader") != 1 || !strings.HasSuffix(out, "converged\n") {
			t.Errorf("%v\n%s", err, out)
		}
		_, took, err := watch(t, &story{want: 1, moments: []moment{{from: 0, err: gone}}})
		if !errs.Is(err, errs.Unavailable) || took > time.Minute {
			t.Errorf("%v after %s", err, took)
		}
		_, took, err = watch(t, &story{want: 1, moments: []moment{{from: 0, err: errs.New(errs.NotFound, "it was removed")}}})
		if !errs.Is(err, errs.NotFound) || took > time.Second {
			t.Errorf("%v after %s", err, took)
		}
	})
}

func TestATerminalIsDrawnOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &story{start: time.Now(), want: 2, moments: []moment{
			{from: 0, tasks: []*controlv1.ListedTask{task(1, 2, running, ""), task(2, 2, preparing, "pulling")}},
			{from: 200 * time.Millisecond, tasks: []*controlv1.ListedTask{task(1, 2, running, ""), task(2, 2, running, "")}},
		}}
		w := progress.Watch{Services: s, Tasks: s, Out: &out, Terminal: true}
		if err := w.Converge(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"\x1b[2Koverall progress: 1 out of 2 tasks\n", "2/2: preparing (pulling)\n", "\x1b[3A", "2/2: running   [=====", "verify: Service web converged\r\n"} {
			if !strings.Contains(out.String(), part) {
				t.Errorf("%q is not in %q", part, out.String())
			}
		}
	})
}

func TestARemovedServicesTasksAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := task(3, 2, running, "")
		lost.Task.Decided.Abandoned = true
		s := &story{start: time.Now(), moments: []moment{
			{from: 0, tasks: []*controlv1.ListedTask{task(1, 2, running, ""), task(2, 2, failed, ""), lost}}, {from: 2 * time.Second, tasks: []*controlv1.ListedTask{lost}},
		}}
		var out bytes.Buffer
		w := progress.Watch{Tasks: s, Out: &out}
		if err := w.Stopped(t.Context(), "s", "web"); err != nil || out.String() != "waiting for the tasks of web to stop: 1 left\n" {
			t.Errorf("%v, %q", err, out.String())
		}
		if took := time.Since(s.start); took < 2*time.Second || took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}
