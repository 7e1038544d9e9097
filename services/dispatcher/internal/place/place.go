// Package place says where tasks are: on which machine, and which dispatcher holds its session.
//
// It owns what people may call a task (find.go) and the Places stream, by which a gateway follows the tasks that it shows.
// It must never touch a session: it only reads the replica. A Server is safe for concurrent use.
package place

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"google.golang.org/grpc"
)

const (
	// maxTargets and maxTarget bound a request, maxTasks what it may name: each task is a stream of a gateway's.
	maxTargets, maxTarget, maxTasks = 100, 256, 500
	// pace is the least time between two looks: a busy cluster changes many times a second, and people can't tell.
	pace = 100 * time.Millisecond
)

// View is the replica.
type View interface {
	Snapshot() *state.Snapshot
	Changed() <-chan struct{}
	Confirmed() <-chan struct{}
}

// Server implements logs.v1.PlaceService.
type Server struct {
	logsv1.UnimplementedPlaceServiceServer

	view     View
	draining <-chan struct{}
}

// New makes one. It ends all streams when draining is closed.
func New(view View, draining <-chan struct{}) *Server { return &Server{view: view, draining: draining} }

// Places streams where tasks are.
func (s *Server) Places(req *logsv1.PlacesRequest, stream grpc.ServerStreamingServer[logsv1.PlacesResponse]) error {
	ctx := stream.Context()
	if len(req.GetTargets()) > maxTargets {
		return errs.New(errs.Invalid, "%d targets, at most %d", len(req.GetTargets()), maxTargets)
	}
	told, complete := map[string]*logsv1.Place{}, false
	for first := true; ; first = false {
		changed := s.view.Changed()
		now, err := places(s.view.Snapshot(), req, first)
		if err != nil && first { // it may be newer than the replica
			if err := s.confirmed(ctx); err != nil {
				return err
			}
			now, err = places(s.view.Snapshot(), req, first)
		}
		if err != nil {
			return err
		}
		if first {
			req, complete = settle(s.view.Snapshot(), req)
		}
		r := diff(told, now)
		r.Complete = first && complete
		if first || len(r.GetPlaces())+len(r.GetGone()) > 0 {
			if err := stream.Send(r); err != nil {
				return err
			}
		}
		told = now
		select {
		case <-changed:
		case <-s.draining:
			return errs.New(errs.Unavailable, "this dispatcher stops: ask another one")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if run.Sleep(ctx, pace) != nil {
			return context.Cause(ctx)
		}
	}
}

// settle has targets that name one task, by its id or the beginning of it, name that one from now on, and reports whether
// all do: then no other will come.
func settle(s *state.Snapshot, req *logsv1.PlacesRequest) (settled *logsv1.PlacesRequest, complete bool) {
	settled = proto.CloneOf(req)
	complete = len(req.GetTargets()) > 0
	for i, target := range req.GetTargets() {
		if id := single(s, target); id != "" {
			settled.Targets[i] = id
		} else {
			complete = false
		}
	}
	return settled, complete
}

// confirmed waits until the quorum has said that the replica misses nothing.
func (s *Server) confirmed(ctx context.Context) error {
	select {
	case <-s.view.Confirmed():
		return nil
	case <-s.draining:
		return errs.New(errs.Unavailable, "this dispatcher stops: ask another one")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// places are those of the targets now. A target that names nothing is a fault the first time; later its service may have
// been removed, and what is left of it is shown to its end.
func places(s *state.Snapshot, req *logsv1.PlacesRequest, strict bool) (map[string]*logsv1.Place, error) {
	out := map[string]*logsv1.Place{}
	add := func(tasks []*typesv1.Task) {
		for _, t := range tasks {
			if !req.GetRunning() || runs(t) {
				out[t.GetMeta().GetId()] = Of(s, t)
			}
		}
	}
	for _, target := range req.GetTargets() {
		tasks, err := find(s, target)
		if err != nil && strict {
			return nil, err
		}
		add(tasks)
	}
	if len(req.GetTargets()) == 0 {
		add(collect(s.Tasks()))
	}
	if len(out) > maxTasks {
		return nil, errs.New(errs.Exhausted, "%d tasks at once, at most %d; name fewer", len(out), maxTasks)
	}
	return out, nil
}

func diff(old, now map[string]*logsv1.Place) *logsv1.PlacesResponse {
	r := &logsv1.PlacesResponse{}
	for id, p := range now {
		if !proto.Equal(old[id], p) {
			r.Places = append(r.Places, p)
		}
	}
	for id := range old {
		if now[id] == nil {
			r.Gone = append(r.Gone, id)
		}
	}
	slices.SortFunc(r.Places, func(a, b *logsv1.Place) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetTaskId(), b.GetTaskId()))
	})
	slices.Sort(r.Gone)
	return r
}

// Of is the place of a task.
func Of(s *state.Snapshot, t *typesv1.Task) *logsv1.Place {
	svc, node := s.Service(t.GetServiceId()), s.Node(t.GetDecided().GetNodeId())
	p := &logsv1.Place{
		TaskId: t.GetMeta().GetId(), Name: NameOf(s, t), ServiceId: t.GetServiceId(), State: state.TaskState(t, node),
		NodeId: t.GetDecided().GetNodeId(), Hostname: state.Hostname(node), Away: away(t, node),
		Labels: svc.GetSpec().GetAnnotations().GetLabels(),
		Tty:    state.SpecOf(svc, t.GetSpecVersion()).GetContainer().GetTty(),
	}
	if p.GetAway() == "" {
		p.DispatcherId = node.GetStatus().GetSession().GetDispatcherId()
	}
	return p
}

// away says why nobody can ask a task's machine, empty if somebody can.
func away(t *typesv1.Task, node *typesv1.Node) string {
	switch {
	case t.GetDecided().GetNodeId() == "":
		return "it has no node yet"
	case node == nil:
		return "its node was removed from the cluster"
	case node.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_DOWN:
		return "node is down"
	case node.GetStatus().GetSession().GetDispatcherId() == "":
		return "node has no session yet"
	}
	return ""
}
