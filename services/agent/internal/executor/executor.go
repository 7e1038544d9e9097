// Package executor runs containers on containerd.
//
// It owns what is in containerd's namespace of ours: images, snapshots, containers and their tasks, and the log files. It
// must never decide what should run, and never touch a container that does not carry the label of our cluster.
//
// Containers do not depend on it: their output goes to a small process that their shim starts and that belongs to the
// container (package logger; a pipe to an agent would block them as soon as the agent is away), and their exit waits in
// containerd until somebody asks. Pull is done by
// this client, since Debian's daemon (1.6) has no transfer service. Everything is safe for concurrent use.
package executor

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	tasksv1 "github.com/containerd/containerd/api/services/tasks/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/failpoint"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/gate"
	"github.com/shoalproject/shoal/services/agent/internal/kernel"
	"github.com/shoalproject/shoal/services/agent/internal/pull"
	"github.com/shoalproject/shoal/services/agent/internal/runtimespec"
	"github.com/shoalproject/shoal/services/agent/internal/shim"
	"github.com/shoalproject/shoal/services/agent/internal/task"
	"github.com/shoalproject/shoal/services/agent/internal/usage"
	"github.com/shoalproject/shoal/services/agent/internal/userns"
	"github.com/shoalproject/shoal/services/agent/internal/volume"
)

const (
	// callTimeout bounds a call of containerd. Fifty containers at once on two cores take seconds each.
	callTimeout = 30 * time.Second
	// runtimeName is the shim: one process a container, so that one death takes one container.
	runtimeName = "io.containerd.runc.v2"
)

// Config says where containerd is and how it is used.
type Config struct {
	Socket      string
	Namespace   string
	Snapshotter string
	Pull        pull.Config
	Logs        string // folder of the containers' output, one a container
	Logger      string // the program that keeps it, where both containerd and the agent see it; started with `logger FOLDER`
	Cluster     string // containers of other clusters are not ours; empty: those of every cluster are, to remove them
	Parallel    int    // containers made or started at once
	Volumes     string // folder of the volumes
	Pins        string // folder for mounts of parts of volumes; it ends with the machine's power
	Init        string // the small init for containers that ask for one
}

// Executor is one connection to containerd.
type Executor struct {
	cfg     Config
	log     *slog.Logger
	client  *containerd.Client
	images  *images
	gate    *gate.Gate // for containers that are made or started
	machine runtimespec.Machine
	volumes *volume.Store
	groups  usage.Reader
	life    string // of this agent process
	layered bool   // the kernel lays mounts with other owners over each other (Linux 5.19)

	making sync.RWMutex // held to read while a container is made, to write while a volume is removed

	mu       sync.Mutex // guards all below
	prepared map[string]prepared
	bundles  map[string]string // of the shims of what runs
}

// prepared is what Start needs to know of a container.
type prepared struct {
	rootfs  []mount.Mount
	ids     container.IDs
	service string
}

// New makes the client. It does not wait for containerd: each call fails with Unavailable until it is there.
func New(cfg Config, logger *slog.Logger) (*Executor, error) {
	client, err := containerd.New(cfg.Socket, containerd.WithDefaultNamespace(cfg.Namespace), containerd.WithTimeout(time.Second))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", cfg.Socket, err)
	}
	// The client library has a log of its own, in another format and on standard error. What matters comes as errors.
	if err := log.SetLevel("error"); err != nil {
		return nil, err
	}
	life, err := randomID()
	if err != nil {
		return nil, err
	}
	e := &Executor{
		life: life, cfg: cfg, log: logger, client: client, machine: kernel.Machine(cfg.Init, logger), volumes: volume.New(cfg.Volumes, cfg.Pins),
		groups: usage.Real(), layered: kernel.AtLeast(5, 19),
		gate: gate.New(cfg.Parallel), prepared: map[string]prepared{}, bundles: map[string]string{},
	}
	e.images = newImages(e)
	return e, nil
}

// Close lets go of the connection. Containers run on.
func (e *Executor) Close() error { return e.client.Close() }

// Version is containerd's.
func (e *Executor) Version(ctx context.Context) (string, error) {
	ctx, cancel := e.call(ctx)
	defer cancel()
	v, err := e.client.Version(ctx)
	if err != nil {
		return "", e.failure("ask containerd for its version", err)
	}
	return "containerd " + v.Version, nil
}

// List returns the containers of our cluster, running or not.
func (e *Executor) List(ctx context.Context) ([]container.Found, error) {
	ctx, cancel := e.call(ctx)
	defer cancel()
	made, err := e.client.ContainerService().List(ctx, e.ours())
	if err != nil {
		return nil, e.failure("list containers", err)
	}
	started, err := e.client.TaskService().List(ctx, &tasksv1.ListTasksRequest{})
	if err != nil {
		return nil, e.failure("list running containers", err)
	}
	processes := make(map[string]*tasktypes.Process, len(started.GetTasks()))
	for _, p := range started.GetTasks() {
		processes[p.GetID()] = p
	}
	var found []container.Found
	for _, c := range made {
		f := container.Found{ID: c.ID, Origin: originOf(c.Labels), Presence: task.Made, IDs: idsOf(c.Labels)}
		if p := processes[c.ID]; p != nil {
			e.observe(&f, p)
		}
		found = append(found, f)
	}
	return found, nil
}

func (e *Executor) observe(f *container.Found, p *tasktypes.Process) {
	switch p.GetStatus() {
	case tasktypes.Status_RUNNING, tasktypes.Status_PAUSED, tasktypes.Status_PAUSING:
		f.Presence, f.PID = task.Running, e.runs(f.ID, p.GetPid())
	case tasktypes.Status_STOPPED:
		f.Presence = task.Ended
		f.Exit = &task.Exit{Code: int32(p.GetExitStatus()), OOM: kernel.OOMKilled(f.ID)}
	default: // created, or not known: it has not run
	}
}

// Start starts a prepared container and returns its process id. Starting one that runs is no error.
func (e *Executor) Start(ctx context.Context, id string) (int64, error) {
	// More at once than the machine has cores for only makes each slower.
	release, err := e.gate.Pass(ctx, e.serviceOf(id))
	if err != nil {
		return 0, err
	}
	defer release()
	ctx, cancel := e.call(ctx)
	defer cancel()
	made, err := e.made(ctx, id)
	if err != nil {
		return 0, e.failure("mount the root file system", err)
	}
	tasks := e.client.TaskService()
	options, err := runtimeOptions(made.ids)
	if err != nil {
		return 0, err
	}
	req := &tasksv1.CreateTaskRequest{ContainerID: id, Rootfs: mount.ToProto(made.rootfs), Options: options}
	e.output(id, req)
	begun, err := e.beginOutput(id)
	if err != nil {
		return 0, errs.New(errs.Unavailable, "start the container's logger: %w", err)
	}
	defer begun()
	created, err := tasks.Create(ctx, req)
	if err = e.failure("create the process", err); err != nil && !errs.Is(err, errs.Exists) {
		return 0, err
	}
	if err == nil && made.ids.Mapped() {
		if err := userns.GiveStreams(int(created.GetPid())); err != nil {
			return 0, err
		}
	}
	_ = failpoint.Hit("agent.process-made")
	started, err := tasks.Start(ctx, &tasksv1.StartRequest{ContainerID: id})
	if err = e.failure("start the process", err); err == nil {
		return e.runs(id, started.GetPid()), nil
	}
	if found, stateErr := tasks.Get(ctx, &tasksv1.GetRequest{ContainerID: id}); stateErr == nil &&
		found.GetProcess().GetStatus() == tasktypes.Status_RUNNING {
		return e.runs(id, found.GetProcess().GetPid()), nil // started by an earlier life of the agent
	}
	return 0, err
}

// runtimeOptions say that no session keyring is made for a container: a thousand containers would use up root's quota of
// keys, and the default filter of system calls keeps containers from keyrings. The pipes of commands that people run in it belong to
// its root.
func runtimeOptions(ids container.IDs) (*anypb.Any, error) {
	options, err := typeurl.MarshalAnyToProto(&runcoptions.Options{NoNewKeyring: true, IoUid: ids.First, IoGid: ids.First})
	if err != nil {
		return nil, fmt.Errorf("write the runtime's options: %w", err)
	}
	return options, nil
}

// made takes what Prepare has found out, to save calls; after a restart containerd is asked.
func (e *Executor) made(ctx context.Context, id string) (prepared, error) {
	e.mu.Lock()
	p, ok := e.prepared[id]
	delete(e.prepared, id)
	e.mu.Unlock()
	if ok {
		return p, nil
	}
	c, err := e.client.ContainerService().Get(ctx, id)
	if err != nil {
		return prepared{}, err
	}
	rootfs, err := e.client.SnapshotService(e.cfg.Snapshotter).Mounts(ctx, id)
	return prepared{e.throughPins(id, rootfs), idsOf(c.Labels), ""}, err
}

// Wait blocks until the container's process has ended, over restarts of containerd too. NotFound: there is none.
func (e *Executor) Wait(ctx context.Context, id string) (task.Exit, error) {
	for {
		r, err := e.client.TaskService().Wait(namespaces.WithNamespace(ctx, e.cfg.Namespace), &tasksv1.WaitRequest{ContainerID: id})
		if err == nil {
			return task.Exit{Code: int32(r.GetExitStatus()), OOM: kernel.OOMKilled(id)}, nil
		}
		err = e.failure("wait for container "+id, err)
		if ctx.Err() != nil || !errs.Is(err, errs.Unavailable) {
			return task.Exit{}, err
		}
		if code, err := e.waitWithout(ctx, id); err == nil {
			return task.Exit{Code: code, OOM: kernel.OOMKilled(id)}, nil
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return task.Exit{}, err
		}
	}
}

// waitWithout waits without containerd.
func (e *Executor) waitWithout(ctx context.Context, id string) (int32, error) {
	e.mu.Lock()
	bundle := e.bundles[id]
	e.mu.Unlock()
	if bundle == "" {
		return 0, errs.New(errs.NotFound, "the shim of %s is not known", id)
	}
	return shim.Wait(ctx, bundle, id)
}

// runs keeps where the shim of a running container is, and returns its process id. One that has ended since it was looked at has none: how
// it ended is still to be asked for where it was.
func (e *Executor) runs(id string, pid uint32) int64 {
	if bundle := shim.Bundle(int64(pid), id); bundle != "" {
		e.mu.Lock()
		e.bundles[id] = bundle
		e.mu.Unlock()
	}
	return int64(pid)
}

// call bounds a call and names our namespace.
func (e *Executor) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(namespaces.WithNamespace(ctx, e.cfg.Namespace), callTimeout)
}
