package sim

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Operator is a person at a desk, whose tools call the gateway.
type Operator struct {
	c       *Cluster
	gateway string

	Services controlv1.ServiceServiceClient
	Tasks    controlv1.TaskServiceClient
	Nodes    controlv1.NodeServiceClient
	Networks controlv1.NetworkServiceClient
	Members  controlv1.MemberServiceClient
	Tokens   cav1.TokenServiceClient
	Logs     logsv1.LogServiceClient
	Stats    logsv1.StatsServiceClient
	Read     logsv1.TaskReadServiceClient
	Inside   logsv1.ExecServiceClient
	Volumes  logsv1.VolumeServiceClient
}

const (
	deskDir     = "/home/operator/context"
	callTimeout = 5 * time.Second
	removeTries = 3
)

// newOperator makes a desk of its own, and sits down there.
func newOperator(c *Cluster, gateway string) *Operator {
	c.t.Helper()
	files := c.W.Host("desk", "10.9.255.1").Disk.Files()
	for name, data := range map[string]string{
		"cert.pem": c.began.OperatorCert, "key.pem": c.began.OperatorKey, "bundle.pem": c.began.Bundle,
	} {
		if err := files.Write(deskDir+"/"+name, []byte(data), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	o := &Operator{c: c, gateway: gateway}
	o.SitDown()
	return o
}

// Leave ends the operator's tools: nobody at the desk tries to reach the cluster.
func (o *Operator) Leave() {
	o.c.t.Helper()
	if err := o.c.W.Host("desk").Stop("tools"); err != nil {
		o.c.t.Fatal(err)
	}
}

// SitDown starts the operator's tools.
func (o *Operator) SitDown() {
	o.c.t.Helper()
	desk, conns := o.c.W.Host("desk"), make(chan *grpc.ClientConn, 1)
	err := desk.Start("tools", func(ctx context.Context, env run.Env) error {
		defer close(conns)
		keeper, err := identity.Load(env, deskDir)
		if err != nil {
			return err
		}
		conn, err := rpc.DialAddress(env, keeper, o.gateway+":2384", authzv1.Role_ROLE_GATEWAY)
		if err != nil {
			return err
		}
		defer conn.Close()
		conns <- conn
		<-ctx.Done()
		return nil
	})
	if err != nil {
		o.c.t.Fatal(err)
	}
	conn, ok := <-conns
	if !ok {
		o.c.t.Fatalf("the operator's tools do not start: %v", desk.Errors())
	}
	o.Services, o.Tasks = controlv1.NewServiceServiceClient(conn), controlv1.NewTaskServiceClient(conn)
	o.Nodes, o.Networks = controlv1.NewNodeServiceClient(conn), controlv1.NewNetworkServiceClient(conn)
	o.Members, o.Tokens = controlv1.NewMemberServiceClient(conn), cav1.NewTokenServiceClient(conn)
	o.Logs, o.Stats = logsv1.NewLogServiceClient(conn), logsv1.NewStatsServiceClient(conn)
	o.Read, o.Inside = logsv1.NewTaskReadServiceClient(conn), logsv1.NewExecServiceClient(conn)
	o.Volumes = logsv1.NewVolumeServiceClient(conn)
}

func (o *Operator) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(o.c.t.Context(), callTimeout)
}

// CreateService makes a replicated service of micro with a published port.
func (o *Operator) CreateService(name string, replicas uint64, networks ...string) (*typesv1.Service, error) {
	ctx, cancel := o.context()
	defer cancel()
	spec := &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: name},
		Task:        &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "registry.test/micro:1.0.0"}},
		Mode:        &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: &replicas}},
		Endpoint:    &typesv1.EndpointSpec{Ports: []*typesv1.PortConfig{{TargetPort: 8000}}},
	}
	for _, n := range networks {
		spec.Task.Networks = append(spec.Task.Networks, &typesv1.NetworkAttachment{Target: n})
	}
	resp, err := o.Services.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: spec})
	return resp.GetService(), err
}

// Update changes a service's spec as read now.
func (o *Operator) Update(name string, change func(*typesv1.ServiceSpec)) error {
	ctx, cancel := o.context()
	defer cancel()
	got, err := o.Services.GetService(ctx, &controlv1.GetServiceRequest{Service: name})
	if err != nil {
		return err
	}
	change(got.GetService().GetSpec())
	_, err = o.Services.UpdateService(ctx, &controlv1.UpdateServiceRequest{
		Service: name, Version: got.GetVersion(), Spec: got.GetService().GetSpec(),
	})
	return err
}

// Scale sets a service's replicas.
func (o *Operator) Scale(name string, replicas uint64) error {
	return o.Update(name, func(s *typesv1.ServiceSpec) { s.GetReplicated().Replicas = &replicas })
}

// ListTasks returns a service's tasks; live leaves those that are wanted and running.
func (o *Operator) ListTasks(service string, live bool) ([]*controlv1.ListedTask, error) {
	ctx, cancel := o.context()
	defer cancel()
	resp, err := o.Tasks.ListTasks(ctx, &controlv1.ListTasksRequest{Filters: []string{"service=" + service}})
	if err != nil || !live {
		return resp.GetTasks(), err
	}
	var out []*controlv1.ListedTask
	for _, t := range resp.GetTasks() {
		if t.GetState() == typesv1.TaskState_TASK_STATE_RUNNING &&
			t.GetTask().GetDecided().GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && !t.GetTask().GetDecided().GetAbandoned() {
			out = append(out, t)
		}
	}
	return out, nil
}

// Wrong says what keeps a service from having exactly n running tasks; empty when it has.
func (o *Operator) Wrong(service string, n uint64) string {
	ctx, cancel := o.context()
	defer cancel()
	resp, err := o.Services.GetService(ctx, &controlv1.GetServiceRequest{Service: service})
	if err != nil {
		return err.Error()
	}
	if k := resp.GetCounts(); k.GetRunning() != n || k.GetDesired() != n {
		return fmt.Sprintf("%s has %d/%d, want %d: %s", service, k.GetRunning(), k.GetDesired(), n, o.table(service))
	}
	return ""
}

// Converge waits until a service has exactly n running tasks.
func (o *Operator) Converge(service string, n uint64, within time.Duration) time.Duration {
	o.c.t.Helper()
	return o.c.Until(service+" converges", within, func() string { return o.Wrong(service, n) })
}

func (o *Operator) table(service string) string {
	tasks, err := o.ListTasks(service, false)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, t := range tasks {
		fmt.Fprintf(&b, "\n  %s %s on %s: %s %s", t.GetTask().GetMeta().GetId(), t.GetName(), t.GetNodeHostname(), t.GetState(), t.GetReason())
	}
	return b.String()
}

// NodeState tells a machine's state.
func (o *Operator) NodeState(hostname string) typesv1.NodeState {
	ctx, cancel := o.context()
	defer cancel()
	resp, err := o.Nodes.GetNode(ctx, &controlv1.GetNodeRequest{Node: hostname})
	if err != nil {
		return typesv1.NodeState_NODE_STATE_UNSPECIFIED
	}
	return resp.GetNode().GetNode().GetStatus().GetState()
}

// Unready says what keeps a machine from being READY; empty when it is.
func (o *Operator) Unready(machineID string) string {
	ctx, cancel := o.context()
	defer cancel()
	resp, err := o.Nodes.GetNode(ctx, &controlv1.GetNodeRequest{Node: machineID})
	if err != nil {
		return err.Error()
	}
	if s := resp.GetNode().GetNode().GetStatus().GetState(); s != typesv1.NodeState_NODE_STATE_READY {
		return s.String()
	}
	return ""
}

// Leader is the machine whose store leads, nil while there is none.
func (o *Operator) Leader() *Machine {
	ctx, cancel := o.context()
	defer cancel()
	resp, err := o.Members.ListMembers(ctx, &controlv1.ListMembersRequest{Filters: []string{"role=store"}})
	if err != nil {
		return nil
	}
	for _, s := range resp.GetMembers() {
		if s.GetLeader() {
			for _, m := range o.c.Machines {
				if m.ID == s.GetMember().GetMachineId() {
					return m
				}
			}
		}
	}
	return nil
}

// CreateNetwork makes an overlay.
func (o *Operator) CreateNetwork(name string) error {
	ctx, cancel := o.context()
	defer cancel()
	_, err := o.Networks.CreateNetwork(ctx, &controlv1.CreateNetworkRequest{
		Spec: &typesv1.NetworkSpec{Annotations: &typesv1.Annotations{Name: name}, Driver: "overlay"},
	})
	return err
}

// Manager says what keeps a machine's store from being a voter that was heard lately; empty when it is one.
func (o *Operator) Manager(machineID string) string {
	got, err := o.Member("store/" + machineID)
	if err != nil {
		return err.Error()
	}
	if !got.GetMember().GetRaft().GetVoter() || got.GetHealth() == controlv1.MemberHealth_MEMBER_HEALTH_SILENT {
		return got.GetMember().GetRaft().String() + " " + got.GetHealth().String()
	}
	return ""
}

// Member is one process.
func (o *Operator) Member(name string) (*controlv1.ListedMember, error) {
	ctx, cancel := o.context()
	defer cancel()
	resp, err := o.Members.GetMember(ctx, &controlv1.GetMemberRequest{Member: name})
	return resp.GetMember(), err
}

// Drain drains a process, or takes that back.
func (o *Operator) Drain(name string, drain, force bool) error {
	ctx, cancel := o.context()
	defer cancel()
	_, err := o.Members.UpdateMember(ctx, &controlv1.UpdateMemberRequest{Member: name, Drain: &drain, Force: force})
	return err
}

// Vote makes a voter of a store, or a learner.
func (o *Operator) Vote(name string, voter bool) error {
	ctx, cancel := o.context()
	defer cancel()
	_, err := o.Members.UpdateMember(ctx, &controlv1.UpdateMemberRequest{Member: name, Voter: &voter})
	return err
}

// RemoveMember removes a process. A call that was lost is made again, as `shoal member rm` does: the store that carries it
// may be the one that goes.
func (o *Operator) RemoveMember(name string, force bool) error {
	for try := 0; ; try++ {
		ctx, cancel := o.context()
		_, err := o.Members.DeleteMember(ctx, &controlv1.DeleteMemberRequest{Member: name, Force: force})
		cancel()
		switch {
		case try > 0 && errs.Is(err, errs.NotFound):
			return nil
		case errs.KindOf(err) != errs.Unavailable || try == removeTries:
			return err
		}
		time.Sleep(300 * time.Millisecond)
	}
}

// Exists tells whether an object of that name was there already.
func Exists(err error) bool { return errs.Is(err, errs.Exists) }

// Rotate makes a new worker token.
func (o *Operator) Rotate() (string, error) {
	ctx, cancel := o.context()
	defer cancel()
	resp, err := o.Tokens.RotateJoinToken(ctx, &cav1.RotateJoinTokenRequest{Role: typesv1.NodeRole_NODE_ROLE_WORKER})
	return resp.GetToken(), err
}

// RemoveNode is `shoal node rm`.
func (o *Operator) RemoveNode(node string) error {
	ctx, cancel := o.context()
	defer cancel()
	_, err := o.Nodes.DeleteNode(ctx, &controlv1.DeleteNodeRequest{Node: node})
	return err
}

// TaskIDs are the ids of a service's live tasks, sorted.
func (o *Operator) TaskIDs(service string) []string {
	tasks, err := o.ListTasks(service, true)
	if err != nil {
		o.c.t.Fatal(err)
	}
	var ids []string
	for _, t := range tasks {
		ids = append(ids, t.GetTask().GetMeta().GetId())
	}
	slices.Sort(ids)
	return ids
}

// Call asks a process for its health with the certificate of a role of some machine, as its own process would.
func (c *Cluster) Call(from *Machine, as authzv1.Role, to *Machine, port string, role authzv1.Role) error {
	return from.Command("call", func(ctx context.Context, env run.Env) error {
		keeper, err := identity.Load(env, path.Join(from.base(as).Data, "identity"))
		if err != nil {
			return err
		}
		conn, err := rpc.DialAddress(env, keeper, to.Address+":"+port, role)
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	})
}
