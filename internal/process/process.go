// Package process is what every one of our processes has: its identity, its directory of members, its server, its folder.
//
// It wires internal/identity, internal/directory and internal/rpc together, keeps the certificate renewed through the CA,
// tells the init system when the process does its work, and, in the control processes, feeds trust and directory from the
// store (Follow) and tells the store who this is (Announce). It must never know what a process does. A Process is safe for concurrent use once it runs.
package process

import (
	"context"
	"log/slog"
	"path"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/prometheus/client_golang/prometheus"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/health"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
)

// FeatureLevel is what this build offers to mixed versions: it rises when a peer has to know.
const FeatureLevel uint32 = 1

// Process is one of our processes.
type Process struct {
	// ID is who it is.
	ID identity.ID
	// Keeper has its certificate and trust.
	Keeper *identity.Keeper
	// Directory is where the others are.
	Directory *directory.Directory
	// Server is what it serves. Register services before Go.
	Server *rpc.Server
	// Env is the env given to Open, with the log at the level of the config and the identity in it.
	Env run.Env
	// Base is its config.
	Base config.Base
	// Drain is whether it is wanted to hand over what it has; Follow keeps it.
	Drain *Drain
	// Burden is what it carries. Set it before Announce.
	Burden Burden

	port   int            // 0: it listens nowhere
	level  *slog.LevelVar // of Env.Log
	probes []run.Probe    // see Alive
	// told is set when the init system knows that the process does its work.
	told atomic.Bool
	// metrics gets the address of each reload that has another one.
	metrics chan string
}

// Open reads the identity and the directory of a process in its folder. Port is the role's own, 0 for one that listens
// nowhere; the options are the server's. Errors: NotFound (the machine has not joined), Invalid (a file, or a certificate of another role).
func Open(env run.Env, base config.Base, role authzv1.Role, port int, opts ...rpc.ServerOption) (*Process, error) {
	folder := base.Folder(identity.RoleName(role))
	level := new(slog.LevelVar)
	level.Set(base.Level())
	env.Log = run.AtLevel(env.Log, level)
	keeper, err := identity.Load(env, path.Join(folder, "identity"))
	if err != nil {
		return nil, err
	}
	if keeper.ID().Role != role {
		return nil, errs.New(errs.Invalid, "the certificate in %s is for %s, wanted one for %s", folder, keeper.ID(), identity.RoleName(role))
	}
	dir, err := directory.New(env.Files, path.Join(folder, "directory.json"))
	if err != nil {
		return nil, err
	}
	p := &Process{ID: keeper.ID(), Keeper: keeper, Directory: dir, Env: env, Base: base, Drain: newDrain(), port: port, level: level, metrics: make(chan string)}
	p.Server = rpc.NewServer(env, keeper, opts...)
	p.measure()
	return p, nil
}

// measure exposes how long the certificate lasts.
func (p *Process) measure() {
	if p.Env.Metrics == nil {
		return
	}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shoal_certificate_not_after_seconds", Help: "When the process's certificate runs out, in seconds since 1970.",
	}, func() float64 { return float64(p.Keeper.Certificate().NotAfter.Unix()) })
	if err := p.Env.Metrics.Register(gauge); err != nil {
		p.Env.Log.Debug("certificate metric is not registered", "error", err)
	}
}

// Path is a file in the process's folder.
func (p *Process) Path(name string) string {
	return path.Join(p.Base.Folder(identity.RoleName(p.ID.Role)), name)
}

// Addresses is where others reach this process, as host:port, best first; nil if it listens nowhere.
func (p *Process) Addresses() []string {
	if p.port == 0 {
		return nil
	}
	return p.Base.Addresses(p.port)
}

// Dial makes a client of a role; see rpc.Dial. The caller closes it.
func (p *Process) Dial(role authzv1.Role) (*grpc.ClientConn, error) {
	return rpc.Dial(p.Env, p.Keeper, p.Directory, role)
}

// DialAddress makes a client of one address; see rpc.DialAddress. The caller closes it.
func (p *Process) DialAddress(addr string, roles ...authzv1.Role) (*grpc.ClientConn, error) {
	return rpc.DialAddress(p.Env, p.Keeper, addr, roles...)
}

// Go adds what every process does to a group: renewing its certificate, serving, saying on its health socket how it is, and
// telling the init system when all parts of its health are well for the first time. Needs are the parts that must have said so before that, beside the
// listener: StorePart for one that follows the store. It also takes a new config at run time, and shows the init system
// that the process lives: see Alive.
func (p *Process) Go(g *run.Group, needs ...string) {
	for _, part := range needs {
		p.Server.Health().Set(part, false, "starting")
	}
	g.Go("renewal", p.renew)
	g.Go("ready", p.ready)
	g.Go("reload", p.reload)
	g.Go("watchdog", run.Watchdog(p.Env, append(p.probes, run.Probe{Name: "health", Ask: p.askHealth})))
	g.Go("health", health.ServeSocket(p.Env, p.Server.Health(), p.Path(health.SocketFile)))
	if p.port != 0 {
		p.Server.Health().Set("listener", false, "not listening yet")
		g.Go("server", p.Server.Serve(p.Base.Listens(p.port)))
	}
	g.Go("metrics", p.serveMetrics)
}

// renew keeps the certificate renewed by any CA.
func (p *Process) renew(ctx context.Context) error {
	conn, err := p.Dial(authzv1.Role_ROLE_CA)
	if err != nil {
		return err
	}
	defer conn.Close()
	ca := cav1.NewCertificateServiceClient(conn)
	return p.Keeper.Run(ctx, func(ctx context.Context, csr []byte) (chain, bundle []byte, err error) {
		resp, err := ca.Renew(ctx, &cav1.RenewRequest{Csr: csr, Version: run.Version()})
		if err != nil {
			return nil, nil, err
		}
		if err := p.Directory.Set(resp.GetDirectory()); err != nil {
			p.Env.Log.Warn("directory is not kept", "error", err)
		}
		return resp.GetChain(), resp.GetBundle(), nil
	})
}
