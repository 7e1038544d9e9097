package assign_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/assign"
)

const (
	wanted = typesv1.TaskState_TASK_STATE_RUNNING
	stop   = typesv1.TaskState_TASK_STATE_SHUTDOWN
)

// change makes the next snapshot; nil deletes nothing.
func change(s *state.Snapshot, gone []state.Key, objects ...proto.Message) *state.Snapshot {
	v := s.Version()
	v.EpochNumber, v.Revision = 1, v.Revision+1
	t := s.Begin()
	for _, o := range objects {
		wrapped := state.Wrap(proto.Clone(o))
		state.MetaOf(wrapped).Revision = v.Revision
		t.Put(wrapped)
	}
	for _, k := range gone {
		t.Delete(k)
	}
	return t.Commit(v, time.Time{})
}

func service(version uint64) *typesv1.Service {
	return &typesv1.Service{
		Meta: &typesv1.Meta{Id: "s1"}, SpecVersion: version, SpecHash: []byte{byte(version)},
		Spec: &typesv1.ServiceSpec{
			Annotations: &typesv1.Annotations{Name: "web"},
			Task:        &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "micro"}},
		},
	}
}

func task(id string, desired, observed typesv1.TaskState) *typesv1.Task {
	return &typesv1.Task{
		Meta: &typesv1.Meta{Id: id}, ServiceId: "s1", SpecVersion: 1,
		Decided:  &typesv1.TaskDecided{Slot: 1, NodeId: "n1", Desired: desired},
		Observed: &typesv1.TaskObserved{State: observed},
	}
}

// A task whose service, or the version that it runs, is gone is still to be stopped as it was started.
func TestSpecOutlivesItsService(t *testing.T) {
	for name, gone := range map[string]func(*state.Snapshot) *state.Snapshot{
		"service deleted": func(s *state.Snapshot) *state.Snapshot {
			return change(s, []state.Key{{Kind: typesv1.Kind_KIND_SERVICE, ID: "s1"}}, task("t1", stop, wanted))
		},
		"version left the history": func(s *state.Snapshot) *state.Snapshot { return change(s, nil, service(9), task("t1", stop, wanted)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := change(state.Empty(), nil, service(1), task("t1", wanted, wanted))
			first := assign.Of(s, "n1", nil)
			s = gone(s)
			next := assign.Of(s, "n1", first)
			got := next.Tasks["t1"]
			if got.GetSpec().GetContainer().GetImage() != "micro" || got.GetServiceName() != "web" || len(got.GetSpecHash()) != 1 {
				t.Fatalf("%v, want the spec that it was started with", got)
			}
			if d := assign.Diff(first, next, nil); len(d.GetTasks()) != 1 || d.GetTasks()[0].GetDesired() != stop {
				t.Fatalf("difference %v, want t1 told to stop", d)
			}
		})
	}
}

// A task whose end is in the store leaves the machine's set, so that the machine may forget it.
func TestTerminalTasksLeave(t *testing.T) {
	s := change(state.Empty(), nil, service(1), task("t1", wanted, wanted), task("t2", wanted, wanted))
	first := assign.Of(s, "n1", nil)
	s = change(s, nil, task("t1", wanted, typesv1.TaskState_TASK_STATE_FAILED))
	d := assign.Diff(first, assign.Of(s, "n1", first), s.Version().Proto())
	if diff := cmp.Diff([]string{"t1"}, d.GetRemovedTasks()); diff != "" || len(d.GetTasks()) != 0 {
		t.Fatalf("difference %v, want t1 removed and nothing else", d)
	}
	full := assign.Full(assign.Of(s, "n1", nil), nil)
	if len(full.GetTasks()) != 1 || full.GetTasks()[0].GetTaskId() != "t2" {
		t.Fatalf("whole %v, want t2 alone", full)
	}
}

// A status changes nothing for the machine that reported it, and does not put off the revision that a stop waits for.
func TestStatusIsNoNews(t *testing.T) {
	s := change(state.Empty(), nil, service(1), task("t1", stop, wanted))
	first := assign.Of(s, "n1", nil)
	at := first.Tasks["t1"].GetStopRevision()
	if at != s.Version().Revision {
		t.Fatalf("stop revision %d, want %d", at, s.Version().Revision)
	}
	reported := task("t1", stop, wanted)
	reported.Observed.Seq = 7
	s = change(s, nil, reported)
	next := assign.Of(s, "n1", first)
	if d := assign.Diff(first, next, nil); d != nil {
		t.Fatalf("difference %v, want none", d)
	}
	if next.HighestStop() != at {
		t.Fatalf("stop revision %d, want %d as before", next.HighestStop(), at)
	}
}

// A task is told which login its image's registry wants, and of another one when there is one; tasks whose images are elsewhere
// hear nothing, and need nothing.
func TestLoginsAreFollowed(t *testing.T) {
	svc, other := service(1), service(1)
	svc.Spec.Task.Container.Image = "r.example/web:1@sha256:aa"
	other.Meta.Id = "s2"
	far := task("t2", wanted, wanted)
	far.ServiceId = "s2"
	kept := &typesv1.Registry{Meta: &typesv1.Meta{Id: "r"}, Annotations: &typesv1.Annotations{Name: "r.example"}, Versions: []*typesv1.DataVersion{{Number: 1}}}
	s := change(state.Empty(), nil, svc, other, kept, task("t1", wanted, wanted), far)
	first := assign.Of(s, "n1", nil)
	if diff := cmp.Diff([]string{"r.1"}, first.Payloads()); diff != "" || first.Tasks["t1"].GetLogin() != "r.1" {
		t.Fatalf("payloads (-want +got):\n%s", diff)
	}
	kept.Versions = []*typesv1.DataVersion{{Number: 2}}
	s = change(s, nil, kept)
	second := assign.Of(s, "n1", first)
	d := assign.Diff(first, second, nil)
	if len(d.GetTasks()) != 1 || d.GetTasks()[0].GetTaskId() != "t1" || d.GetTasks()[0].GetLogin() != "r.2" {
		t.Fatalf("difference %v, want t1 with the second login", d)
	}
	if diff := cmp.Diff([]string{"r.2"}, second.Payloads()); diff != "" {
		t.Errorf("payloads (-want +got):\n%s", diff)
	}
	s = change(s, []state.Key{{Kind: typesv1.Kind_KIND_REGISTRY, ID: "r"}})
	if third := assign.Of(s, "n1", second); third.Tasks["t1"].GetLogin() != "" || len(third.Payloads()) != 0 {
		t.Errorf("after its removal: %v", third.Tasks["t1"])
	}
}

// A change of the service that is not of the task's version reaches the task, and a network's change does.
func TestWhatATaskNeedsIsFollowed(t *testing.T) {
	svc := service(1)
	svc.Spec.Task.Networks = []*typesv1.NetworkAttachment{{Target: "o1"}}
	net := &typesv1.Network{Meta: &typesv1.Meta{Id: "o1"}, Ipam: &typesv1.NetworkIPAM{Vni: 4097}}
	s := change(state.Empty(), nil, svc, net, task("t1", wanted, wanted))
	first := assign.Of(s, "n1", nil)
	net.Ipam.Vni = 4098
	s = change(s, nil, net)
	second := assign.Of(s, "n1", first)
	if d := assign.Diff(first, second, nil); len(d.GetTasks()) != 1 || d.GetTasks()[0].GetNetworks()[0].GetVni() != 4098 {
		t.Fatalf("difference %v, want t1 with VNI 4098", d)
	}
	svc.Spec.Annotations.Labels = map[string]string{"a": "b"}
	s = change(s, nil, svc)
	if d := assign.Diff(second, assign.Of(s, "n1", second), nil); d.GetTasks()[0].GetServiceLabels()["a"] != "b" {
		t.Fatalf("difference %v, want t1 with the label", d)
	}
}
