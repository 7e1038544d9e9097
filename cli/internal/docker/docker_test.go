package docker_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/cli/internal/docker"
)

func TestPortsAreJoinedIntoRanges(t *testing.T) {
	const udp = typesv1.Protocol_PROTOCOL_UDP
	got := docker.Ports([]*typesv1.PortConfig{
		{PublishedPort: 8081, TargetPort: 81}, {PublishedPort: 53, TargetPort: 53, Protocol: udp}, {PublishedPort: 8080, TargetPort: 80}, {PublishedPort: 9000, TargetPort: 82},
	})
	if want := "*:8080-8081->80-81/tcp, *:9000->82/tcp, *:53->53/udp"; got != want {
		t.Errorf("got %q, wanted %q", got, want)
	}
}

func TestImagesAreShownAsTyped(t *testing.T) {
	for ref, want := range map[string]string{
		"docker.io/library/nginx:1": "nginx:1", "nginx:1@sha256:ab": "nginx:1", "r.example:5000/a/b@sha256:ab": "r.example:5000/a/b@sha256:ab",
		"r.example:5000/a/b:2@sha256:ab": "r.example:5000/a/b:2", "docker.io/me/x": "me/x",
	} {
		if got := docker.Image(ref, false); got != want {
			t.Errorf("%s is %q, wanted %q", ref, got, want)
		}
		if got := docker.Image(ref, true); got != ref {
			t.Errorf("%s in full is %q", ref, got)
		}
	}
}

func TestADeadTaskStaysInTheHistoryWithItsReason(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 1, 0, 0, time.UTC)
	code := int32(137)
	at := timestamppb.New(now.Add(-6 * time.Second))
	dead := &controlv1.ListedTask{
		Name: "web.3", State: typesv1.TaskState_TASK_STATE_FAILED, Reason: "exit code 137: killed by signal 9, or by the kernel", NodeHostname: "m2", Image: "img:1",
		Task: &typesv1.Task{
			Meta:     &typesv1.Meta{Id: "bbbbbbbbbbbbbbbb"},
			Decided:  &typesv1.TaskDecided{Desired: typesv1.TaskState_TASK_STATE_SHUTDOWN, NodeId: "n"},
			Observed: &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_FAILED, At: at, ExitCode: &code, ContainerId: "bbbb.0", Pid: 7},
		},
	}
	next := &controlv1.ListedTask{
		Name: "web.3", State: typesv1.TaskState_TASK_STATE_PENDING, Reason: "no node has room", Image: "img:1",
		Task: &typesv1.Task{
			Meta:    &typesv1.Meta{Id: "aaaaaaaaaaaaaaaa"},
			Decided: &typesv1.TaskDecided{Desired: typesv1.TaskState_TASK_STATE_RUNNING, Since: timestamppb.New(now.Add(-time.Second))},
		},
	}
	want := []docker.TaskRow{
		{ID: "aaaaaaaaaaaa", Name: "web.3", Image: "img:1", DesiredState: "Running", CurrentState: "Pending 1 second ago", Error: `"no node has room"`},
		{ID: "bbbbbbbbbbbb", Name: ` \_ web.3`, Image: "img:1", Node: "m2", DesiredState: "Shutdown", CurrentState: "Failed 6 seconds ago", Error: `"exit code 137: killed by sign…"`},
	}
	if diff := cmp.Diff(want, docker.TaskRowsOf([]*controlv1.ListedTask{next, dead}, now, false)); diff != "" {
		t.Error(diff)
	}
	status := docker.TaskOf(dead).Status
	if status.State != "failed" || *status.ContainerStatus.ExitCode != 137 || status.ContainerStatus.PID != 7 || status.ContainerStatus.ContainerID != "bbbb.0" {
		t.Errorf("%+v", status)
	}
}
