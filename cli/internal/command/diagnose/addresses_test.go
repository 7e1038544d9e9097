package diagnose

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

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
)

// store is a cluster in which two services' tasks have one address, for as many looks as it says.
type store struct {
	controlv1.ServiceServiceClient
	controlv1.TaskServiceClient
	controlv1.NetworkServiceClient
	controlv1.NodeServiceClient
	looks, twice int
	updates      []*controlv1.UpdateServiceRequest
}

func (s *store) ListTasks(context.Context, *controlv1.ListTasksRequest, ...grpc.CallOption) (*controlv1.ListTasksResponse, error) {
	s.looks++
	r := &controlv1.ListTasksResponse{}
	for _, service := range []string{"web", "db"} {
		address := "10.0.0.7/20"
		if service == "db" && s.looks > s.twice {
			address = "10.0.0.8/20"
		}
		r.Tasks = append(r.Tasks, &controlv1.ListedTask{Task: &typesv1.Task{
			Meta: &typesv1.Meta{Id: service + "1"}, ServiceId: service, Observed: &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_RUNNING},
			Decided: &typesv1.TaskDecided{NodeId: "m1", Slot: 1, Addresses: []*typesv1.TaskAddress{{NetworkId: "front", Addresses: []string{address}}}, Desired: typesv1.TaskState_TASK_STATE_RUNNING},
		}})
	}
	return r, nil
}

func (s *store) service(name string) *typesv1.Service {
	return &typesv1.Service{Meta: &typesv1.Meta{Id: name}, Spec: &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: name}, Task: &typesv1.TaskSpec{ForceUpdate: 3}}}
}

func (s *store) ListServices(context.Context, *controlv1.ListServicesRequest, ...grpc.CallOption) (*controlv1.ListServicesResponse, error) {
	return &controlv1.ListServicesResponse{Services: []*controlv1.ListedService{{Service: s.service("web")}, {Service: s.service("db")}}}, nil
}

func (s *store) GetService(_ context.Context, r *controlv1.GetServiceRequest, _ ...grpc.CallOption) (*controlv1.GetServiceResponse, error) {
	return &controlv1.GetServiceResponse{Service: s.service(r.GetService()), Version: &typesv1.Version{Revision: 42}}, nil
}

func (s *store) UpdateService(_ context.Context, r *controlv1.UpdateServiceRequest, _ ...grpc.CallOption) (*controlv1.UpdateServiceResponse, error) {
	s.updates = append(s.updates, r)
	return &controlv1.UpdateServiceResponse{}, nil
}

func (s *store) ListNetworks(context.Context, *controlv1.ListNetworksRequest, ...grpc.CallOption) (*controlv1.ListNetworksResponse, error) {
	return &controlv1.ListNetworksResponse{Networks: []*typesv1.Network{{Meta: &typesv1.Meta{Id: "front"}, Ipam: &typesv1.NetworkIPAM{Subnets: []string{"10.0.0.0/20"}}}}}, nil
}

func (s *store) ListNodes(context.Context, *controlv1.ListNodesRequest, ...grpc.CallOption) (*controlv1.ListNodesResponse, error) {
	return &controlv1.ListNodesResponse{Nodes: []*controlv1.ListedNode{{Node: &typesv1.Node{Meta: &typesv1.Meta{Id: "m1"}}}}}, nil
}

// TestLeaks: what two looks see is told, and repaired by one update of one service, at the version that was read. What only the first has
// seen was a change under way: nothing is done about it.
func TestLeaks(t *testing.T) {
	for _, tc := range []struct {
		twice, updates int
		says           string
	}{
		{2, 1, "10.0.0.7 is held by the task db.1 and the task web.1"},
		{1, 0, "2 addresses are held"},
		{0, 0, "2 addresses are held"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &store{twice: tc.twice}
			cl := &client.Client{Services: s, Tasks: s, Networks: s, Nodes: s}
			found, err := leaks(t.Context(), cl, time.Now)
			if err != nil || len(found) != 1 || !strings.Contains(found[0].What, tc.says) {
				t.Fatalf("%v: found %+v, want %q", err, found, tc.says)
			}
			if err := repairLeaks(t.Context(), &app.App{Err: &bytes.Buffer{}}, cl, found); err != nil || len(s.updates) != tc.updates {
				t.Errorf("%v: updates %v, want %d", err, s.updates, tc.updates)
			}
			for _, u := range s.updates {
				if u.GetSpec().GetTask().GetForceUpdate() != 4 || u.GetVersion().GetRevision() != 42 {
					t.Errorf("asked for %v", u)
				}
			}
		})
	}
}
