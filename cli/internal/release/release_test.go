package release_test

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/release"
)

// cluster has one machine, with an agent that never gets rid of its tasks, and a dispatcher.
type cluster struct {
	controlv1.NodeServiceClient
	controlv1.TaskServiceClient
	controlv1.MemberServiceClient

	away     bool // nobody answers
	tasks    int
	spec     *typesv1.NodeSpec
	drained  bool
	changes  []string
	noMember bool
}

func newCluster() (*cluster, *release.Cluster) {
	c := &cluster{spec: &typesv1.NodeSpec{Availability: typesv1.Availability_AVAILABILITY_PAUSE}}
	return c, &release.Cluster{Client: &client.Client{Nodes: c, Tasks: c, Members: c}, Out: io.Discard}
}

func (c *cluster) answer() error {
	if c.away {
		return errs.New(errs.Unavailable, "nobody answers")
	}
	return nil
}

func (c *cluster) GetNode(context.Context, *controlv1.GetNodeRequest, ...grpc.CallOption) (*controlv1.GetNodeResponse, error) {
	return &controlv1.GetNodeResponse{Node: &controlv1.ListedNode{Node: &typesv1.Node{Spec: c.spec}}}, c.answer()
}

func (c *cluster) UpdateNode(_ context.Context, req *controlv1.UpdateNodeRequest, _ ...grpc.CallOption) (*controlv1.UpdateNodeResponse, error) {
	c.spec = req.GetSpec()
	c.changes = append(c.changes, strings.ToLower(strings.TrimPrefix(c.spec.GetAvailability().String(), "AVAILABILITY_")))
	return &controlv1.UpdateNodeResponse{}, c.answer()
}

func (c *cluster) ListTasks(context.Context, *controlv1.ListTasksRequest, ...grpc.CallOption) (*controlv1.ListTasksResponse, error) {
	resp := &controlv1.ListTasksResponse{}
	for range c.tasks {
		resp.Tasks = append(resp.Tasks, &controlv1.ListedTask{State: typesv1.TaskState_TASK_STATE_RUNNING})
	}
	return resp, c.answer()
}

func (c *cluster) listed() *controlv1.ListedMember {
	return &controlv1.ListedMember{Member: &typesv1.Member{Spec: &typesv1.MemberSpec{Drain: c.drained}, Status: &typesv1.MemberStatus{Drained: c.drained}}}
}

func (c *cluster) GetMember(context.Context, *controlv1.GetMemberRequest, ...grpc.CallOption) (*controlv1.GetMemberResponse, error) {
	return &controlv1.GetMemberResponse{Member: c.listed()}, c.answer()
}

func (c *cluster) UpdateMember(_ context.Context, req *controlv1.UpdateMemberRequest, _ ...grpc.CallOption) (*controlv1.UpdateMemberResponse, error) {
	c.drained = req.GetDrain()
	return &controlv1.UpdateMemberResponse{Member: c.listed()}, c.answer()
}

func (c *cluster) DeleteMember(context.Context, *controlv1.DeleteMemberRequest, ...grpc.CallOption) (*controlv1.DeleteMemberResponse, error) {
	if c.noMember {
		return nil, errs.New(errs.NotFound, "there is none of that name")
	}
	return &controlv1.DeleteMemberResponse{}, c.answer()
}

// What people wanted of a machine before it was drained, they want afterwards.
func TestAMachineIsWhatItWasBefore(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(c *cluster)
		after func(ctx context.Context, r *release.Cluster) error
		want  []string
	}{
		"taken back":              {func(*cluster) {}, func(ctx context.Context, r *release.Cluster) error { return r.Activate(ctx, "agent/m1") }, []string{"drain", "pause"}},
		"removed":                 {func(*cluster) {}, func(ctx context.Context, r *release.Cluster) error { return r.Remove(ctx, "agent/m1", true) }, []string{"drain", "pause"}},
		"removed by somebody":     {func(c *cluster) { c.noMember = true }, func(ctx context.Context, r *release.Cluster) error { return r.Remove(ctx, "agent/m1", true) }, []string{"drain", "pause"}},
		"it was never looked at":  {func(c *cluster) { c.away = true }, func(ctx context.Context, r *release.Cluster) error { return r.Activate(ctx, "agent/m1") }, nil},
		"and by force is removed": {func(c *cluster) { c.away = true }, func(ctx context.Context, r *release.Cluster) error { return r.Remove(ctx, "agent/m1", true) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			cl, r := newCluster()
			c.spoil(cl)
			if err := r.Drain(t.Context(), "agent/m1"); (err != nil) != cl.away {
				t.Fatal(err)
			}
			cl.away = false // it is back
			if err := c.after(t.Context(), r); (err != nil) != cl.noMember {
				t.Error(err)
			}
			if !slices.Equal(cl.changes, c.want) {
				t.Errorf("it became %v, wanted %v", cl.changes, c.want)
			}
		})
	}
}

func TestAMemberThatPeopleDrainedStaysDrained(t *testing.T) {
	for _, before := range []bool{true, false} {
		cl, r := newCluster()
		cl.drained = before
		if err := r.Drain(t.Context(), "dispatcher/m1"); err != nil || !cl.drained {
			t.Fatal(err, cl.drained)
		}
		if err := r.Activate(t.Context(), "dispatcher/m1"); err != nil || cl.drained != before {
			t.Errorf("drained before: %t, after: %t, %v", before, cl.drained, err)
		}
	}
}

// Without a scheduler no task ever leaves a machine. Who forces does not wait for it.
func TestForceEndsTheWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl, r := newCluster()
		cl.tasks, r.Force = 1, true
		begun := time.Now()
		err := r.Drain(t.Context(), "agent/m1")
		if waited := time.Since(begun); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "let go of all within 1m0s") || waited > 2*time.Minute {
			t.Errorf("after %s: %v", waited, err)
		}
	})
}
