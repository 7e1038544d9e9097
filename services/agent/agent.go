// Package agent does: it runs on this machine the tasks that the cluster assigned to it.
//
// It owns the machine's containers of this cluster, their namespaces and their logs, and a journal of what it was told
// and has said. It must never decide what should run, and never touch a container of anybody else. Its containers outlive
// it: when it stops, crashes or is upgraded they run on, and the next one takes them over.
package agent

import (
	"context"
	"path/filepath"
	"runtime"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/bootid"
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/attach"
	"github.com/shoalproject/shoal/services/agent/internal/carry"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/disk"
	"github.com/shoalproject/shoal/services/agent/internal/executor"
	"github.com/shoalproject/shoal/services/agent/internal/idpool"
	"github.com/shoalproject/shoal/services/agent/internal/initd"
	"github.com/shoalproject/shoal/services/agent/internal/inside"
	"github.com/shoalproject/shoal/services/agent/internal/journal"
	"github.com/shoalproject/shoal/services/agent/internal/logger"
	"github.com/shoalproject/shoal/services/agent/internal/memfs"
	"github.com/shoalproject/shoal/services/agent/internal/mesh"
	"github.com/shoalproject/shoal/services/agent/internal/meter"
	"github.com/shoalproject/shoal/services/agent/internal/network"
	"github.com/shoalproject/shoal/services/agent/internal/prune"
	"github.com/shoalproject/shoal/services/agent/internal/reconcile"
	"github.com/shoalproject/shoal/services/agent/internal/report"
	"github.com/shoalproject/shoal/services/agent/internal/session"
	"github.com/shoalproject/shoal/services/agent/internal/shelf"
	"github.com/shoalproject/shoal/services/agent/internal/system"
	"github.com/shoalproject/shoal/services/agent/internal/usage"
)

const (
	// noPort: an agent listens nowhere.
	noPort = 0
	// featureLevel is what this build offers to mixed versions.
	featureLevel = process.FeatureLevel
	// versionWait bounds the look for the runtime's version, which is only for people and must not hold up a session.
	versionWait = 300 * time.Millisecond
)

// Env is what the agent takes from outside: what all processes do, and a machine. A nil field means the real one.
type Env struct {
	run.Env
	// Executor runs containers, and looks into them; nil: containerd.
	Executor interface {
		reconcile.Executor
		inside.Runtime
		shelf.Volumes
	}
	// Network connects them; nil: the kernel.
	Network reconcile.Network
	// Vault keeps what containers have of secrets and configs; nil: memory of the machine.
	Vault reconcile.Files
	// Journal keeps what must outlive the agent; nil: a file.
	Journal journal.Journal
	// Usage has the counters of containers; nil: control groups.
	Usage meter.Source
	// Machine says what this is; nil: the operating system.
	Machine interface {
		Describe() *typesv1.NodeDescription
	}
}

// Run wires the agent and blocks until ctx ends or a part fails. No end of it touches a container.
func Run(ctx context.Context, cfg Config, env Env) error {
	p, err := process.Open(env.Env, cfg.Base, authzv1.Role_ROLE_AGENT, noPort)
	if err != nil {
		return err
	}
	env.Env = p.Env
	closeReal, err := env.fill(cfg, p)
	defer closeReal()
	if err != nil {
		return err
	}
	bootID, err := bootid.Of(env.Env, cfg.BootID)
	if err != nil {
		return err
	}
	sockets, _ := env.Network.(mesh.Sockets) // a network in memory has no namespaces
	proxy, err := mesh.New(env.Env, cfg.MeshSocket, sockets)
	if err != nil {
		return err
	}
	defer proxy.Close()

	// Step 1: the loop that owns what runs here. It begins with taking over what it finds.
	outbox := report.New()
	loop := reconcile.New(reconcile.Parts{
		Log: env.Log, Now: env.Now, Cluster: p.ID.Cluster, Executor: env.runtime(cfg), Network: env.Network,
		Node: container.Node{ID: p.ID.Name, Hostname: env.Host, OS: runtime.GOOS, Architecture: runtime.GOARCH}, Files: env.Vault, Journal: env.Journal, Mesh: proxy, Outbox: outbox,
		IDs: idpool.New(cfg.UserIDs, cfg.UserRanges),
	})
	// Step 2: what people want to see and do in containers comes over streams of its own.
	answers := inside.New(env.Executor, loop)
	carrier := carry.New(env.Env, func(address string) (*grpc.ClientConn, error) {
		return p.DialAddress(address, authzv1.Role_ROLE_DISPATCHER)
	}, carry.Service{Desc: logsv1.TaskReadService_ServiceDesc, Handler: answers}, carry.Service{Desc: logsv1.ExecService_ServiceDesc, Handler: answers},
		carry.Service{Desc: logsv1.NodeVolumeService_ServiceDesc, Handler: shelf.New(env.Executor)},
		carry.Service{Desc: logsv1.NodeNetworkService_ServiceDesc, Handler: proxy.Relay()})
	// Step 3: the line to the cluster, which waits until that is done.
	disks := disk.New(env.Env, env.disks()...)
	gauge := meter.New(env.Rand, env.Now, env.Usage, proxy)
	line := &session.Client{
		Usage: gauge.Reports(),
		Env:   env.Env, Directory: p.Directory, Trust: p.Keeper.SetTrust, Machine: loop, Outbox: outbox, Health: p.Server.Health(),
		Dispatchers: func() []*cav1.DirectoryEntry { return p.Directory.Entries(authzv1.Role_ROLE_DISPATCHER) },
		Dial: func(address string) (*grpc.ClientConn, error) {
			return p.DialAddress(address, authzv1.Role_ROLE_DISPATCHER)
		},
		Describe: func(ctx context.Context) *typesv1.NodeDescription {
			d, plane := env.describe(ctx), proxy.Dataplane(ctx)
			d.Dataplane, d.DataplaneReason = plane.GetDataplane(), plane.GetReason()
			d.Tunnel, d.TunnelReason, d.TunnelKeys = plane.GetTunnel(), plane.GetTunnelReason(), plane.GetTunnelKeys()
			d.OwnAddresses = plane.GetOwnAddresses()
			disks.Describe(d)
			return d
		},
		Redescribe: disks.Changed(), Streams: carrier.Open,
		Hello: &dispatcherv1.Hello{
			Kind: dispatcherv1.SessionKind_SESSION_KIND_NODE, BootId: bootID, Addresses: cfg.Advertise, Vteps: cfg.Advertise,
			MeshPort: uint32(cfg.MeshPort), HearsTimeout: true,
		},
	}

	p.Alive("loop", loop.Alive)
	g := run.NewGroup(env.Log)
	p.Go(g, session.Part) // ready when the session is open: `shoal join` waits for it
	g.Go("loop", loop.Run)
	g.Go("workers", loop.Workers)
	g.Go("mesh", proxy.Run)
	g.Go("plane", func(ctx context.Context) error { return proxy.Follow(ctx, disks.Tell) })
	g.Go("streams", carrier.Run)
	g.Go("session", line.Run)
	g.Go("meter", gauge.Run)
	g.Go("disks", disks.Run)
	if runtime, ok := env.Executor.(prune.Runtime); ok {
		g.Go("images", (&prune.Pruner{
			Log: env.Log, Now: env.Now, Rand: env.Rand, Runtime: runtime, Tasks: loop, Removed: disks.Removed,
			Marks: prune.Marks{High: cfg.ImagesHigh, Low: cfg.ImagesLow, Keep: cfg.ImagesKeep},
		}).Run)
	}
	return g.Wait(ctx)
}

// fill puts the real thing into every nil field. What it returns closes them again.
func (e *Env) fill(cfg Config, p *process.Process) (closeReal func(), err error) {
	var closers []func() error
	closeReal = func() {
		for _, c := range closers {
			if err := c(); err != nil {
				e.Log.Warn("not closed cleanly", "error", err)
			}
		}
	}
	if e.Machine == nil {
		e.Machine = system.Machine{Data: p.Path(".")}
	}
	if e.Usage == nil {
		e.Usage = meter.Kernel{Reader: usage.Real()}
	}
	if e.Network == nil {
		kernel := network.New(cfg.RunDir)
		kernel.FindBy(attach.Finder(cfg.Socket, cfg.Namespace))
		e.Network = kernel
	}
	if e.Vault == nil {
		e.Vault = memfs.New(filepath.Join(cfg.RunDir, "secrets"))
	}
	if e.Journal == nil {
		j, err := journal.Open(p.Path("journal.db"), e.Log)
		if err != nil {
			return closeReal, err
		}
		closers = append(closers, j.Close)
		e.Journal = j
	}
	if e.Executor == nil {
		program, err := logger.Program(cfg.Logger)
		if err != nil {
			return closeReal, err
		}
		volumes, pins := cfg.volumes()
		x, err := executor.New(executor.Config{
			Socket: cfg.Socket, Namespace: cfg.Namespace, Snapshotter: cfg.Snapshotter, Pull: cfg.pulls(),
			Logs: p.Path("logs"), Logger: program, Cluster: p.ID.Cluster, Parallel: cfg.Parallel,
			Volumes: volumes, Pins: pins, Init: initd.Program(),
		}, e.Log)
		if err != nil {
			return closeReal, err
		}
		closers = append(closers, x.Close)
		e.Executor = x
	}
	return closeReal, nil
}

// runtime runs our own containers, and watches those of others where they can be put on networks.
func (e *Env) runtime(cfg Config) reconcile.Executor {
	if places, ok := e.Network.(attach.Places); ok {
		return attach.Over(e.Executor, cfg.guests(), places)
	}
	return e.Executor
}

// disks are those that this machine depends on; of a machine in memory there is none.
func (e *Env) disks() (out []disk.Disk) {
	if m, ok := e.Machine.(interface {
		Free() (disk.Use, error)
	}); ok {
		out = append(out, disk.Disk{Name: "data", Look: func(context.Context) (disk.Use, error) { return m.Free() }})
	}
	if runtime, ok := e.Executor.(prune.Runtime); ok {
		out = append(out, disk.Disk{Name: "images", Look: runtime.Disk})
	}
	return out
}

// describe says what this machine is now; it is asked at the start of each session.
func (e *Env) describe(ctx context.Context) *typesv1.NodeDescription {
	d := e.Machine.Describe()
	d.Hostname, d.FeatureLevel = e.Host, featureLevel
	if teller, ok := e.Executor.(interface {
		Version(ctx context.Context) (string, error)
	}); ok {
		ctx, cancel := context.WithTimeout(ctx, versionWait)
		defer cancel()
		if v, err := teller.Version(ctx); err == nil {
			d.RuntimeVersion = v
		}
	}
	if kernel, ok := e.Executor.(interface{ UserNamespaces() error }); ok {
		err := kernel.UserNamespaces()
		if d.UserNamespaces = err == nil; err != nil {
			d.UserNamespacesReason = err.Error()
		}
	}
	return d
}
