package command_test

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// forecaster is the part of the fake cluster that only talks. It holds nothing that could be changed.
type forecaster struct {
	controlv1.UnimplementedPreviewServiceServer
	schedulerv1.UnimplementedExplainServiceServer
	schedulerv1.UnimplementedPlanServiceServer
}

func effect(svc *typesv1.ServiceSpec, id string) *controlv1.Effect {
	return &controlv1.Effect{Puts: []*typesv1.Object{state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: id}, Spec: svc, SpecVersion: 2})}}
}

// Preview judges as little as the fake cluster does.
func (forecaster) Preview(_ context.Context, req *controlv1.PreviewRequest) (*controlv1.PreviewResponse, error) {
	out := &controlv1.PreviewResponse{Version: &typesv1.Version{Epoch: &typesv1.Epoch{Number: 1}, Revision: 41}}
	switch c := req.GetCall().(type) {
	case *controlv1.PreviewRequest_CreateService:
		if c.CreateService.GetSpec().GetTask().GetContainer().GetImage() == "bad" {
			return nil, errs.Faults("create service", errs.Fault{Field: "task.container.image", Reason: "is no image"}, errs.Fault{Field: "replicas", Reason: "are too many"})
		}
		out.Effect = effect(c.CreateService.GetSpec(), "new")
	case *controlv1.PreviewRequest_UpdateService:
		out.Effect = effect(c.UpdateService.GetSpec(), c.UpdateService.GetService())
	case *controlv1.PreviewRequest_DeleteService:
		out.Effect = &controlv1.Effect{Removals: []*controlv1.Removal{{Kind: typesv1.Kind_KIND_SERVICE, Id: c.DeleteService.GetService()}}}
	case *controlv1.PreviewRequest_UpdateNode:
		n := &typesv1.Node{Meta: &typesv1.Meta{Id: c.UpdateNode.GetNode()}, Spec: c.UpdateNode.GetSpec()}
		out.Effect = &controlv1.Effect{Puts: []*typesv1.Object{state.Wrap(n)}}
	case *controlv1.PreviewRequest_DeleteNode:
		if !c.DeleteNode.GetForce() {
			return nil, errs.New(errs.Precondition, "node m2 is not down and can't be removed")
		}
		out.Effect = &controlv1.Effect{Removals: []*controlv1.Removal{{Kind: typesv1.Kind_KIND_NODE, Id: c.DeleteNode.GetNode()}}}
	default:
		return nil, errs.New(errs.Invalid, "no call")
	}
	return out, nil
}

// Plan tells of one action for each change.
func (forecaster) Plan(_ context.Context, req *schedulerv1.PlanRequest) (*schedulerv1.PlanResponse, error) {
	out := &schedulerv1.PlanResponse{Version: &typesv1.Version{Revision: max(req.GetAtLeast().GetRevision(), 40)}, Rests: true}
	act := func(after time.Duration, a *schedulerv1.PlannedAction) {
		out.Steps = append(out.Steps, &schedulerv1.PlanStep{After: durationpb.New(after), Actions: []*schedulerv1.PlannedAction{a}})
	}
	for _, o := range req.GetEffect().GetPuts() {
		name := o.GetService().GetSpec().GetAnnotations().GetName()
		if n := o.GetNode(); n != nil {
			act(0, &schedulerv1.PlannedAction{Kind: schedulerv1.ActionKind_ACTION_KIND_MOVE, ServiceName: "web", Slot: 1, FromNode: n.GetMeta().GetId(), ToNode: "m1",
				Reason: fmt.Sprintf("node is %s", n.GetSpec().GetAvailability())})
			out.Nodes = append(out.Nodes, &schedulerv1.PlannedNode{NodeName: n.GetMeta().GetId(), Before: 1})
			continue
		}
		act(0, &schedulerv1.PlannedAction{Kind: schedulerv1.ActionKind_ACTION_KIND_START, ServiceName: name, Slot: 1, ToNode: "m1"})
		act(5*time.Second, &schedulerv1.PlannedAction{Kind: schedulerv1.ActionKind_ACTION_KIND_WAIT, ServiceName: name, Slot: 2, Reason: "no suitable node: 1 node is down"})
		out.Waits = append(out.Waits, &schedulerv1.PlannedWait{ServiceName: name, Slot: 2, Reason: "no suitable node: 1 node is down"})
		out.Services = append(out.Services, &schedulerv1.PlannedService{ServiceName: name, Before: 1, Least: 0, After: 1, Floor: 1})
	}
	for _, r := range req.GetEffect().GetRemovals() {
		act(0, &schedulerv1.PlannedAction{Kind: schedulerv1.ActionKind_ACTION_KIND_STOP, ServiceId: r.GetId(), Slot: 1, FromNode: "m2"})
	}
	for _, id := range req.GetPowerOff() {
		act(0, &schedulerv1.PlannedAction{Kind: schedulerv1.ActionKind_ACTION_KIND_LOSE, ServiceName: "web", Slot: 1, FromNode: id, Anyway: true, Reason: "it is down"})
	}
	return out, nil
}

// Explain knows of two tasks.
func (forecaster) Explain(_ context.Context, req *schedulerv1.ExplainRequest) (*schedulerv1.ExplainResponse, error) {
	if req.GetTask() == "9" {
		return nil, errs.New(errs.NotFound, `service "web" has no task 9 that is to run`)
	}
	best := &schedulerv1.JudgedNode{NodeName: "m1", Rank: 1, Load: 135}
	own := &schedulerv1.JudgedNode{NodeName: "m2", Rank: 2, ServiceTasks: 1, Load: 260, Resources: []string{"1 GiB of 4 GiB of memory reserved"}}
	drained := []*schedulerv1.Refusal{{Nodes: 1, Words: "is drained"}, {Nodes: 2, Words: "lack 1 GiB of memory"}}
	out := &schedulerv1.ExplainResponse{
		Version: &typesv1.Version{Revision: 41}, ServiceName: "web", Ranking: "least load, id", ClusterTime: timestamppb.New(time.Unix(120, 0)),
		Tasks: []*schedulerv1.ExplainedTask{
			{Id: "t2", Slot: 2, Observed: typesv1.TaskState_TASK_STATE_PENDING, Reason: "no suitable node: 1 node is drained", Since: timestamppb.New(time.Unix(0, 0)),
				Choice: &schedulerv1.Choice{LookedAt: 1, Refusals: drained[:1], Nearest: "m3 would take it if it was active"}},
			{Id: "t1", Slot: 1, NodeName: "m2", Observed: typesv1.TaskState_TASK_STATE_RUNNING,
				Choice: &schedulerv1.Choice{LookedAt: 5, Candidates: 2, Refusals: drained, Own: own, Best: best}},
		},
		Next: &schedulerv1.Choice{LookedAt: 5, Candidates: 2, Refusals: drained, Best: best},
	}
	if req.GetNodes() {
		out.Nodes = []*schedulerv1.JudgedNode{best, own, {NodeName: "m3", Refusal: "is drained"}}
	}
	return out, nil
}
