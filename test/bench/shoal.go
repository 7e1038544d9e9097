package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/test/harness"
)

const gatewayPort = "2384"

// shoal is a cluster of ours, asked through a gateway with the operator's certificate, and by the command line.
type shoal struct {
	site    *site
	program string
	env     run.Env
	keep    *identity.Keeper
	config  string // the operator's config folder

	conn     *grpc.ClientConn
	services controlv1.ServiceServiceClient
	tasks    controlv1.TaskServiceClient
	machines controlv1.NodeServiceClient
}

// newShoal makes a laboratory with a cluster. What comes with an error must be closed, too, if it is not nil.
func newShoal(ctx context.Context, cfg config, name string, managers, workers int, log *slog.Logger) (*shoal, error) {
	s, err := open(ctx, harness.Options{Dir: filepath.Join(cfg.Dir, name), Managers: managers, Workers: workers, Program: cfg.program("shoal-lab")}, log)
	if s == nil {
		return nil, err
	}
	o := &shoal{site: s, program: cfg.program("shoal")}
	if err != nil {
		return o, err
	}
	variables, err := s.Env()
	if err != nil {
		return o, err
	}
	certs := ""
	for _, v := range variables {
		switch v.Name {
		case "SHOAL_CERT_PATH":
			certs = v.Value
		case "SHOAL_CONFIG":
			o.config = v.Value
		}
	}
	o.env = run.Env{Log: slog.New(slog.DiscardHandler)}.OrMachine("bench")
	if o.keep, err = identity.Load(o.env, certs); err != nil {
		return o, fmt.Errorf("the operator's certificate: %w", err)
	}
	return o, o.ask("m1")
}

func (o *shoal) who() column       { return ours }
func (o *shoal) on() *site         { return o.site }
func (o *shoal) namespace() string { return "shoal" }

func (o *shoal) close() error {
	if o.conn != nil {
		o.conn.Close()
	}
	return o.site.close()
}

func (o *shoal) refresh(context.Context, string) error { return nil } // its units are enabled

func (o *shoal) ask(host string) error {
	if o.conn != nil {
		o.conn.Close()
	}
	conn, err := rpc.DialAddress(o.env, o.keep, o.site.addresses[host]+":"+gatewayPort, authzv1.Role_ROLE_GATEWAY)
	if err != nil {
		return err
	}
	o.conn = conn
	o.services, o.tasks, o.machines = controlv1.NewServiceServiceClient(conn), controlv1.NewTaskServiceClient(conn), controlv1.NewNodeServiceClient(conn)
	return nil
}

func (o *shoal) create(ctx context.Context, s service) error {
	_, err := o.services.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: o.spec(s)})
	return err
}

func (o *shoal) spec(s service) *typesv1.ServiceSpec {
	replicas := uint64(s.replicas)
	spec := &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: s.name},
		Task:        &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: o.site.image}},
		Mode:        &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: &replicas}},
	}
	if s.delay != nil {
		spec.Task.Restart = &typesv1.RestartPolicy{Delay: durationpb.New(*s.delay)}
	}
	if s.publish != 0 {
		spec.Endpoint = &typesv1.EndpointSpec{Ports: []*typesv1.PortConfig{{TargetPort: microPort, PublishedPort: s.publish}}}
	}
	return spec
}

func (o *shoal) remove(ctx context.Context, name string) error {
	_, err := o.services.DeleteService(ctx, &controlv1.DeleteServiceRequest{Service: name})
	return err
}

func (o *shoal) scale(ctx context.Context, name string, replicas int) error {
	cmd := exec.CommandContext(ctx, o.program, "service", "scale", "--detach", fmt.Sprintf("%s=%d", name, replicas))
	cmd.Env = append(os.Environ(), "SHOAL_CONFIG="+o.config)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("shoal service scale: %w: %s", err, out)
	}
	return nil
}

func (o *shoal) counted(ctx context.Context, name string) (int, error) {
	got, err := o.services.GetService(ctx, &controlv1.GetServiceRequest{Service: name})
	return int(got.GetCounts().GetRunning()), err
}

func (o *shoal) running(ctx context.Context, name string) ([]task, error) {
	got, err := o.tasks.ListTasks(ctx, &controlv1.ListTasksRequest{Filters: []string{"service=" + name, "desired-state=running"}})
	if err != nil {
		return nil, err
	}
	var found []task
	for _, t := range got.GetTasks() {
		if seen := t.GetTask().GetObserved(); t.GetState() == typesv1.TaskState_TASK_STATE_RUNNING && seen.GetReady() {
			found = append(found, task{container: seen.GetContainerId(), host: t.GetNodeHostname()})
		}
	}
	return found, nil
}

func (o *shoal) nodes(ctx context.Context) ([]node, error) {
	got, err := o.machines.ListNodes(ctx, &controlv1.ListNodesRequest{})
	if err != nil {
		return nil, err
	}
	host := map[string]string{}
	for _, n := range got.GetNodes() {
		host[n.GetNode().GetMeta().GetId()] = n.GetNode().GetIdentity().GetHostname()
	}
	var found []node
	for _, n := range got.GetNodes() {
		status := n.GetNode().GetStatus()
		found = append(found, node{
			host:       n.GetNode().GetIdentity().GetHostname(),
			ready:      status.GetState() == typesv1.NodeState_NODE_STATE_READY,
			manager:    n.GetManagerStatus() != controlv1.ManagerStatus_MANAGER_STATUS_UNSPECIFIED,
			leader:     n.GetManagerStatus() == controlv1.ManagerStatus_MANAGER_STATUS_LEADER,
			healthy:    n.GetManagerStatus() == controlv1.ManagerStatus_MANAGER_STATUS_REACHABLE && n.GetVoter(),
			dispatcher: host[status.GetSession().GetDispatcherId()],
		})
	}
	return found, nil
}
