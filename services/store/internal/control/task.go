package control

import (
	"context"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/listing"
)

type tasks struct {
	controlv1.UnimplementedTaskServiceServer
	*API
}

// GetTask implements TaskService.
func (s tasks) GetTask(ctx context.Context, req *controlv1.GetTaskRequest) (*controlv1.GetTaskResponse, error) {
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	t, err := findTask(snap, req.GetTask())
	if err != nil {
		return nil, err
	}
	return &controlv1.GetTaskResponse{Task: listed(snap, t)}, nil
}

// listed is the task with what a person wants to see beside it.
func listed(s *state.Snapshot, t *typesv1.Task) *controlv1.ListedTask {
	svc, node := s.Service(t.GetServiceId()), s.Node(t.GetDecided().GetNodeId())
	spec := state.SpecOf(svc, t.GetSpecVersion())
	return &controlv1.ListedTask{
		Task: t, Name: state.TaskName(svc, t), State: state.TaskState(t, node), Reason: state.TaskReason(t, node),
		Image: spec.GetContainer().GetImage(), NodeHostname: state.Hostname(node),
		Ports: svc.GetEndpoint().GetPorts(), Spec: spec,
	}
}

// ListTasks implements TaskService.
func (s tasks) ListTasks(ctx context.Context, req *controlv1.ListTasksRequest) (*controlv1.ListTasksResponse, error) {
	const what = "list tasks"
	f, err := listing.Parse(what, req.GetFilters(), "id", "name", "service", "node", "desired-state", "label")
	if err != nil {
		return nil, err
	}
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	var rows []listing.Row[*typesv1.Task]
	for t := range snap.Tasks() {
		if matchTask(snap, f, t) {
			rows = append(rows, listing.Row[*typesv1.Task]{Key: taskKey(snap, t), Value: t})
		}
	}
	cut, next, err := listing.Page(what, rows, req.GetPageSize(), req.GetPageToken(),
		func(t *typesv1.Task) int { return proto.Size(listed(snap, t)) })
	if err != nil {
		return nil, err
	}
	resp := &controlv1.ListTasksResponse{NextPageToken: next}
	for _, t := range cut {
		resp.Tasks = append(resp.Tasks, listed(snap, t))
	}
	return resp, nil
}

// taskKey sorts by service, slot, and the newest first.
func taskKey(s *state.Snapshot, t *typesv1.Task) string {
	name := s.Service(t.GetServiceId()).GetSpec().GetAnnotations().GetName()
	age := math.MaxInt64 - t.GetMeta().GetCreatedAt().AsTime().UnixNano()
	return fmt.Sprintf("%s%s%s%s%010d%s%s%s%019d%s%s", name, listing.Sep, t.GetServiceId(), listing.Sep, t.GetDecided().GetSlot(), listing.Sep,
		t.GetDecided().GetForNode(), listing.Sep, age, listing.Sep, t.GetMeta().GetId())
}

func matchTask(s *state.Snapshot, f listing.Filters, t *typesv1.Task) bool {
	svc, node := s.Service(t.GetServiceId()), s.Node(t.GetDecided().GetNodeId())
	return f.Prefix("id", t.GetMeta().GetId()) &&
		f.Prefix("name", state.TaskName(svc, t)) &&
		f.Match("service", func(v string) bool {
			return v == t.GetServiceId() || v == svc.GetSpec().GetAnnotations().GetName()
		}) &&
		f.Match("node", func(v string) bool {
			return node != nil && (v == node.GetMeta().GetId() || v == state.Hostname(node))
		}) &&
		f.Equal("desired-state", desiredName(state.DesiredState(t))) &&
		f.Label("label", svc.GetSpec().GetAnnotations().GetLabels())
}

// desiredName has the three words that people know.
func desiredName(s typesv1.TaskState) string {
	switch {
	case s > typesv1.TaskState_TASK_STATE_RUNNING:
		return "shutdown"
	case s == typesv1.TaskState_TASK_STATE_RUNNING:
		return "running"
	}
	return "accepted"
}
