package command_test

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
)

// startTime is how long a task of the fake cluster takes to run.
const startTime = 400 * time.Millisecond

// cluster is a gateway in front of a cluster that keeps what it is told and starts every task after startTime.
type cluster struct {
	controlv1.UnimplementedServiceServiceServer
	controlv1.UnimplementedTaskServiceServer
	controlv1.UnimplementedNodeServiceServer
	controlv1.UnimplementedNetworkServiceServer
	controlv1.UnimplementedClusterServiceServer
	controlv1.UnimplementedMemberServiceServer
	forecaster
	cav1.UnimplementedTokenServiceServer

	mu       sync.Mutex // guards all below
	services map[string]*typesv1.Service
	networks map[string]*typesv1.Network
	secrets  map[string]*typesv1.Secret
	logins   map[string]*typesv1.Registry
	nodes    map[string]*controlv1.ListedNode
	tasks    []*controlv1.ListedTask
	gateways []string
	members  []*controlv1.ListedMember
	count    int
	rotated  int
	refuse   error // of the next update
	stuck    bool  // no task ever starts
	lost     bool  // the answer to the next removal
	settings *typesv1.ClusterSpec
	volumes  []*logsv1.ListedVolume
}

func newCluster() *cluster {
	return &cluster{volumes: shelf(), services: map[string]*typesv1.Service{}, networks: map[string]*typesv1.Network{}, secrets: map[string]*typesv1.Secret{}, logins: map[string]*typesv1.Registry{}, nodes: map[string]*controlv1.ListedNode{}}
}

// serve answers at address until the test ends.
func (f *cluster) serve(t *testing.T, env run.Env, ca *identitytest.Authority, address string) (stop func()) {
	keep := ca.Keeper(t, env, ca.ID(authzv1.Role_ROLE_GATEWAY, "m1"))
	s := rpc.NewServer(env, keep)
	controlv1.RegisterServiceServiceServer(s.GRPC(), f)
	controlv1.RegisterTaskServiceServer(s.GRPC(), f)
	controlv1.RegisterNodeServiceServer(s.GRPC(), f)
	controlv1.RegisterSecretServiceServer(s.GRPC(), secretsOf{cluster: f})
	logsv1.RegisterVolumeServiceServer(s.GRPC(), &volumesOf{cluster: f})
	controlv1.RegisterNetworkServiceServer(s.GRPC(), f)
	controlv1.RegisterRegistryServiceServer(s.GRPC(), loginsOf{cluster: f})
	controlv1.RegisterClusterServiceServer(s.GRPC(), f)
	controlv1.RegisterMemberServiceServer(s.GRPC(), f)
	cav1.RegisterTokenServiceServer(s.GRPC(), f)
	controlv1.RegisterPreviewServiceServer(s.GRPC(), f)
	schedulerv1.RegisterExplainServiceServer(s.GRPC(), f)
	schedulerv1.RegisterPlanServiceServer(s.GRPC(), f)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve([]string{address})(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// id makes ids that differ in their first characters, as real ones do.
func (f *cluster) id(kind string) string {
	f.count++
	return fmt.Sprintf("%s%d%s", kind, f.count, strings.Repeat("x", 24-len(kind)-len(fmt.Sprint(f.count))))
}

func (f *cluster) meta(kind string) *typesv1.Meta {
	now := timestamppb.New(time.Now())
	return &typesv1.Meta{Id: f.id(kind), Revision: uint64(f.count), CreatedAt: now, UpdatedAt: now}
}

func (f *cluster) CreateNetwork(_ context.Context, req *controlv1.CreateNetworkRequest) (*controlv1.CreateNetworkResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := req.GetSpec().GetAnnotations().GetName()
	if f.networks[name] != nil {
		return nil, errs.New(errs.Exists, "create network %q: there is one of that name", name)
	}
	n := &typesv1.Network{Meta: f.meta("net"), Spec: req.GetSpec(), Ipam: &typesv1.NetworkIPAM{Subnets: []string{"10.0.1.0/24"}, Vni: 4096}}
	f.networks[name] = n
	return &controlv1.CreateNetworkResponse{Network: n}, nil
}

func (f *cluster) network(name string) (*typesv1.Network, error) {
	for _, n := range f.networks {
		if n.GetSpec().GetAnnotations().GetName() == name || strings.HasPrefix(n.GetMeta().GetId(), name) {
			return n, nil
		}
	}
	return nil, errs.New(errs.NotFound, "there is none of that name or id")
}

func (f *cluster) GetNetwork(_ context.Context, req *controlv1.GetNetworkRequest) (*controlv1.GetNetworkResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.network(req.GetNetwork())
	return &controlv1.GetNetworkResponse{Network: n}, err
}

func (f *cluster) ListNetworks(context.Context, *controlv1.ListNetworksRequest) (*controlv1.ListNetworksResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &controlv1.ListNetworksResponse{}
	for _, n := range f.networks {
		resp.Networks = append(resp.Networks, n)
	}
	return resp, nil
}

func (f *cluster) DeleteNetwork(_ context.Context, req *controlv1.DeleteNetworkRequest) (*controlv1.DeleteNetworkResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.network(req.GetNetwork())
	if err != nil {
		return nil, err
	}
	for _, s := range f.services {
		for _, a := range s.GetSpec().GetTask().GetNetworks() {
			if a.GetTarget() == n.GetMeta().GetId() {
				return nil, errs.New(errs.Precondition, "remove network %q: service %q uses it; remove the service first", req.GetNetwork(), s.GetSpec().GetAnnotations().GetName())
			}
		}
	}
	delete(f.networks, n.GetSpec().GetAnnotations().GetName())
	return &controlv1.DeleteNetworkResponse{Id: n.GetMeta().GetId()}, nil
}

func (f *cluster) CreateService(_ context.Context, req *controlv1.CreateServiceRequest) (*controlv1.CreateServiceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	spec := proto.CloneOf(req.GetSpec())
	var faults errs.Collector
	f.admit(spec, &faults)
	name := spec.GetAnnotations().GetName()
	if err := faults.Err(fmt.Sprintf("create service %q", name)); err != nil {
		return nil, err
	}
	s := &typesv1.Service{Meta: f.meta("svc"), Spec: spec, SpecVersion: 1, Endpoint: &typesv1.Endpoint{}}
	f.allocate(s)
	f.services[name] = s
	f.schedule(s)
	return &controlv1.CreateServiceResponse{Service: s, Version: versionOf(s)}, nil
}

func (f *cluster) admit(spec *typesv1.ServiceSpec, faults *errs.Collector) {
	for i, p := range spec.GetEndpoint().GetPorts() {
		faults.Check(p.GetPublishedPort() <= 65535 && p.GetTargetPort() > 0 && p.GetTargetPort() <= 65535, fmt.Sprintf("ports[%d]", i), "is not 1 to 65535")
	}
	for i, a := range spec.GetTask().GetNetworks() {
		n, err := f.network(a.GetTarget())
		if err != nil {
			faults.Add(fmt.Sprintf("networks[%d]", i), "no network %q", a.GetTarget())
			continue
		}
		a.Target = n.GetMeta().GetId()
	}
	if f.services[spec.GetAnnotations().GetName()] != nil && f.count < 0 {
		faults.Add("name", "is taken")
	}
}

func (f *cluster) allocate(s *typesv1.Service) {
	s.Endpoint.Ports = nil
	for i, p := range s.GetSpec().GetEndpoint().GetPorts() {
		given := proto.CloneOf(p)
		if given.PublishedPort == 0 {
			given.PublishedPort = 30000 + uint32(i)
		}
		s.Endpoint.Ports = append(s.Endpoint.Ports, given)
	}
	s.Endpoint.VirtualIps = nil
	for _, a := range s.GetSpec().GetTask().GetNetworks() {
		s.Endpoint.VirtualIps = append(s.Endpoint.VirtualIps, &typesv1.VirtualIP{NetworkId: a.GetTarget(), Addresses: []string{"10.0.1.2/24"}})
	}
}

func versionOf(s *typesv1.Service) *typesv1.Version {
	return &typesv1.Version{Epoch: &typesv1.Epoch{Number: 1}, Revision: s.GetMeta().GetRevision()}
}

// schedule makes a task a slot, and asks those above the wanted number, or of an older spec, to stop.
func (f *cluster) schedule(s *typesv1.Service) {
	want := s.GetSpec().GetReplicated().GetReplicas()
	have := map[uint64]bool{}
	for _, l := range f.tasks {
		t := l.GetTask()
		if t.GetServiceId() != s.GetMeta().GetId() || t.GetDecided().GetDesired() > typesv1.TaskState_TASK_STATE_RUNNING {
			continue
		}
		if t.GetDecided().GetSlot() > want || t.GetSpecVersion() != s.GetSpecVersion() {
			t.Decided.Desired = typesv1.TaskState_TASK_STATE_SHUTDOWN
			t.Observed = &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_SHUTDOWN, At: timestamppb.New(time.Now())}
			l.State = typesv1.TaskState_TASK_STATE_SHUTDOWN
			continue
		}
		have[t.GetDecided().GetSlot()] = true
	}
	for slot := uint64(1); slot <= want; slot++ {
		if have[slot] {
			continue
		}
		f.tasks = append(f.tasks, &controlv1.ListedTask{
			Name:  fmt.Sprintf("%s.%d", s.GetSpec().GetAnnotations().GetName(), slot),
			Image: s.GetSpec().GetTask().GetContainer().GetImage(), NodeHostname: "m1", State: typesv1.TaskState_TASK_STATE_PREPARING,
			Spec: s.GetSpec().GetTask(),
			Task: &typesv1.Task{
				Meta: f.meta("task"), ServiceId: s.GetMeta().GetId(), SpecVersion: s.GetSpecVersion(),
				Decided: &typesv1.TaskDecided{
					Desired: typesv1.TaskState_TASK_STATE_RUNNING, Slot: slot, NodeId: "m1",
					Addresses: []*typesv1.TaskAddress{{Addresses: []string{"10.128.0.2/32"}}},
				},
			},
		})
	}
}

func (f *cluster) service(name string) (*typesv1.Service, error) {
	for _, s := range f.services {
		if s.GetSpec().GetAnnotations().GetName() == name || strings.HasPrefix(s.GetMeta().GetId(), name) {
			return s, nil
		}
	}
	return nil, errs.New(errs.NotFound, "there is none of that name or id")
}

func (f *cluster) GetService(_ context.Context, req *controlv1.GetServiceRequest) (*controlv1.GetServiceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.service(req.GetService())
	return &controlv1.GetServiceResponse{Service: s, Version: versionOf(s), InForce: state.RolledBack(s)}, err
}

func (f *cluster) ListServices(_ context.Context, req *controlv1.ListServicesRequest) (*controlv1.ListServicesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.age()
	resp := &controlv1.ListServicesResponse{}
	var names []string
	for name := range f.services {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		s := f.services[name]
		ofMode := s.GetSpec().GetReplicated() != nil && slices.Contains(req.GetFilters(), "mode=replicated")
		if len(req.GetFilters()) > 0 && !slices.Contains(req.GetFilters(), "name="+name) && !ofMode {
			continue
		}
		counts := &controlv1.TaskCounts{Desired: s.GetSpec().GetReplicated().GetReplicas()}
		for _, l := range f.tasks {
			if l.GetTask().GetServiceId() == s.GetMeta().GetId() && l.GetState() == typesv1.TaskState_TASK_STATE_RUNNING {
				counts.Running++
			}
		}
		listed := proto.CloneOf(s)
		listed.SpecHistory = nil // as the real list leaves it out
		resp.Services = append(resp.Services, &controlv1.ListedService{Service: listed, Counts: counts, InForce: state.RolledBack(s)})
	}
	return resp, nil
}

func (f *cluster) UpdateService(_ context.Context, req *controlv1.UpdateServiceRequest) (*controlv1.UpdateServiceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refuse; err != nil {
		f.refuse = nil
		return nil, err
	}
	s, err := f.service(req.GetService())
	if err != nil {
		return nil, err
	}
	if req.GetVersion().GetRevision() != s.GetMeta().GetRevision() {
		return nil, errs.New(errs.Conflict, "update out of sequence")
	}
	f.replace(s, req.GetSpec())
	return &controlv1.UpdateServiceResponse{Service: s, Version: versionOf(s)}, nil
}

// replace gives a service another spec; an update of it is done at once.
func (f *cluster) replace(s *typesv1.Service, next *typesv1.ServiceSpec) {
	if !proto.Equal(s.GetSpec().GetTask(), next.GetTask()) {
		s.SpecHistory = append([]*typesv1.SpecRecord{{Version: s.GetSpecVersion(), Task: s.GetSpec().GetTask()}}, s.GetSpecHistory()...)
		s.SpecVersion++
		s.UpdateStatus = &typesv1.UpdateStatus{
			State: typesv1.UpdateState_UPDATE_STATE_COMPLETED, SpecVersion: s.GetSpecVersion(), OfVersion: s.GetSpecVersion(), Message: "update completed",
		}
	}
	if n := next.GetRebalance().GetRequest(); n != s.GetRebalanceStatus().GetRequest() { // a fake moves nothing
		s.RebalanceStatus = &typesv1.RebalanceStatus{Request: n, State: typesv1.RebalanceState_REBALANCE_STATE_COMPLETED,
			Message: "0 moved; no further move would make it more even"}
	}
	s.Spec = next
	s.Meta.Revision++
	f.allocate(s)
	f.schedule(s)
}

// goesBack lets the last update of a service be rolled back by itself: the spec stays, and the tasks are of the one before.
func (f *cluster) goesBack(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.services[name]
	before := s.GetSpecHistory()[0].GetVersion()
	s.UpdateStatus = &typesv1.UpdateStatus{
		State: typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED, SpecVersion: before, FromVersion: before,
		OfVersion: s.GetSpecVersion(), Message: "rollback completed",
	}
}

func (f *cluster) RollbackService(_ context.Context, req *controlv1.RollbackServiceRequest) (*controlv1.RollbackServiceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.service(req.GetService())
	if err != nil {
		return nil, err
	}
	for _, r := range s.GetSpecHistory() {
		if req.GetSpecVersion() == 0 || req.GetSpecVersion() == r.GetVersion() {
			next := proto.CloneOf(s.GetSpec())
			next.Task = r.GetTask()
			f.replace(s, next)
			return &controlv1.RollbackServiceResponse{Service: s, Version: versionOf(s)}, nil
		}
	}
	return nil, errs.New(errs.Precondition, "roll back service %q: version %d is not kept", req.GetService(), req.GetSpecVersion())
}

func (f *cluster) DeleteService(_ context.Context, req *controlv1.DeleteServiceRequest) (*controlv1.DeleteServiceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.service(req.GetService())
	if err != nil {
		return nil, err
	}
	delete(f.services, s.GetSpec().GetAnnotations().GetName())
	for _, l := range f.tasks {
		if l.GetTask().GetServiceId() == s.GetMeta().GetId() {
			l.GetTask().Decided.Desired = typesv1.TaskState_TASK_STATE_REMOVE
			l.GetTask().Decided.Since = timestamppb.New(time.Now())
		}
	}
	return &controlv1.DeleteServiceResponse{Id: s.GetMeta().GetId()}, nil
}

// age lets time pass: tasks that are old enough run.
func (f *cluster) age() {
	f.tasks = slices.DeleteFunc(f.tasks, func(l *controlv1.ListedTask) bool {
		d := l.GetTask().GetDecided()
		return d.GetDesired() == typesv1.TaskState_TASK_STATE_REMOVE && time.Since(d.GetSince().AsTime()) >= startTime
	})
	for i, l := range f.tasks {
		if !f.stuck && l.GetState() == typesv1.TaskState_TASK_STATE_PREPARING && time.Since(l.GetTask().GetMeta().GetCreatedAt().AsTime()) >= startTime {
			l.State = typesv1.TaskState_TASK_STATE_RUNNING
			l.GetTask().Observed = &typesv1.TaskObserved{
				State: l.State, At: timestamppb.New(time.Now()), Ready: true, Pid: int64(100 + i), ContainerId: l.GetTask().GetMeta().GetId() + ".0",
			}
		}
	}
}

func (f *cluster) ListTasks(_ context.Context, req *controlv1.ListTasksRequest) (*controlv1.ListTasksResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.age()
	resp := &controlv1.ListTasksResponse{}
	for _, l := range f.tasks {
		match := true
		for _, filter := range req.GetFilters() {
			key, value, _ := strings.Cut(filter, "=")
			match = match && map[string]string{"service": l.GetTask().GetServiceId(), "node": l.GetTask().GetDecided().GetNodeId()}[key] == value
		}
		if match {
			resp.Tasks = append(resp.Tasks, l)
		}
	}
	slices.SortStableFunc(resp.Tasks, func(a, b *controlv1.ListedTask) int {
		if a.GetName() != b.GetName() {
			return strings.Compare(a.GetName(), b.GetName())
		}
		return int(b.GetTask().GetMeta().GetRevision()) - int(a.GetTask().GetMeta().GetRevision())
	})
	return resp, nil
}

func (f *cluster) GetTask(_ context.Context, req *controlv1.GetTaskRequest) (*controlv1.GetTaskResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.age()
	for _, l := range f.tasks {
		if strings.HasPrefix(l.GetTask().GetMeta().GetId(), req.GetTask()) {
			return &controlv1.GetTaskResponse{Task: l}, nil
		}
	}
	return nil, errs.New(errs.NotFound, "there is none of that id")
}

// person is an operator's identity and context in the app's config folder.
func person(t *testing.T, env run.Env, ca *identitytest.Authority, name string) {
	t.Helper()
	id := identity.ID{Cluster: ca.Cluster, Role: authzv1.Role_ROLE_OPERATOR, Name: name}
	ca.Write(t, env, configFolder+"/contexts/default", identitytest.Leaf{URIs: []string{id.URI()}})
}
