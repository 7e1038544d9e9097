// Package meshproxy connects: it answers on every published port and reaches any ready task of the cluster, and keeps the
// machine's part of the cluster's networks in the kernel.
//
// It owns the machine's tables (links, addresses, routes, entries, packet filter) and the user-space mesh. It must never
// decide what runs where: everything it does follows from what a dispatcher streams. When it stops, all tables stay; when
// the control plane is away, it goes on with the last tables it knows.
package meshproxy

import (
	"context"
	"crypto/tls"
	"net"
	"path"
	"runtime"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/bootid"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/apply"
	"github.com/shoalproject/shoal/services/meshproxy/internal/count"
	"github.com/shoalproject/shoal/services/meshproxy/internal/dns"
	"github.com/shoalproject/shoal/services/meshproxy/internal/forward"
	"github.com/shoalproject/shoal/services/meshproxy/internal/hop"
	"github.com/shoalproject/shoal/services/meshproxy/internal/ingress"
	"github.com/shoalproject/shoal/services/meshproxy/internal/insight"
	"github.com/shoalproject/shoal/services/meshproxy/internal/keys"
	"github.com/shoalproject/shoal/services/meshproxy/internal/knock"
	"github.com/shoalproject/shoal/services/meshproxy/internal/local"
	"github.com/shoalproject/shoal/services/meshproxy/internal/neighbour"
	"github.com/shoalproject/shoal/services/meshproxy/internal/pass"
	"github.com/shoalproject/shoal/services/meshproxy/internal/probe"
	"github.com/shoalproject/shoal/services/meshproxy/internal/quota"
	"github.com/shoalproject/shoal/services/meshproxy/internal/session"
	"github.com/shoalproject/shoal/services/meshproxy/internal/space"
	"github.com/shoalproject/shoal/services/meshproxy/internal/surroundings"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tracked"
	"github.com/shoalproject/shoal/services/meshproxy/internal/voice"
)

const (
	// port is the meshproxy's own, on every machine.
	port = 2385
	// protocol is what meshproxies speak to each other, chosen in the handshake.
	protocol = "shoal-mesh/1"
	// peerPatience ends links to a machine that has vanished; the kernel's own patience is a quarter of an hour. With a patience of its own a
	// silent link ends at the first probe after it, if one before was lost: so there are several within it (tcp(7), TCP_USER_TIMEOUT).
	peerPatience = time.Minute
)

// Env is what the meshproxy takes from outside: what all processes do, and the machine's network.
type Env struct {
	run.Env
	// Tables are the machine's network; nil: the kernel's.
	Tables tables.Tables
}

// Run wires the meshproxy and blocks until ctx ends or a part fails.
func Run(ctx context.Context, cfg Config, env Env) error {
	p, err := process.Open(env.Env, cfg.Base, authzv1.Role_ROLE_MESHPROXY, port)
	if err != nil {
		return err
	}
	var spaces *space.Spaces // a machine in memory has no containers' namespaces
	var lacks, strange error // what the kernel cannot do for published ports, and for clients' addresses in user space
	counted := count.Sources{}
	var kernel *tables.Kernel
	show := &insight.Server{Env: p.Env, Node: p.ID.Name, Members: p.Directory.Entries}
	if env.Tables == nil {
		spaces = space.New(p.Env, uint32(cfg.NeighboursPerContainer))
		if kernel, err = tables.New(); err != nil {
			return err
		}
		defer kernel.Close()
		env.Tables, lacks, strange = kernel, probe.Mesh(ctx), probe.Transparent(ctx)
		counted.Kernel, counted.Spaces = kernel.Counts, spaces.Counts
		show.Facts, show.Echo, show.Elements, show.Flows, show.Virtual = surroundings.Facts, surroundings.Echo, kernel.Elements, tracked.Each, spaces
	}
	bootID := "" // an agent says it, where there is one
	if cfg.Ingress {
		if bootID, err = bootid.Of(p.Env, cfg.BootID); err != nil {
			return err
		}
	}
	health := p.Server.Health()
	dispatchers := func() []*cav1.DirectoryEntry { return p.Directory.Entries(authzv1.Role_ROLE_DISPATCHER) }
	dial := func(address string) (*grpc.ClientConn, error) {
		return p.DialAddress(address, authzv1.Role_ROLE_DISPATCHER)
	}

	// Step 1: the mesh in user space, and its door for the other machines. Published ports outlive a restart of the process.
	published := p.Env
	published.Net = run.KeepSockets(p.Env.Net)
	forwarder := forward.New(published, p.ID.Name, dialPeer(p), p.Keeper.Trust)
	p.Server.HandleALPN(protocol, func(ctx context.Context, conn *tls.Conn, peer identity.Peer) {
		if peer.ID.Role == authzv1.Role_ROLE_MESHPROXY {
			run.SetUserTimeout(conn.NetConn(), peerPatience) // the door's own is for calls, which are never silent for long
			forwarder.Accept(ctx, conn, peer.ID.Name)
		}
	})
	// Step 2: the name server of the machine's containers, whose sockets outlive the process too.
	resolver := dns.New(published, health)
	// Step 3: the loop that brings kernel, containers and forwarder to the tables; it starts with the last known ones.
	follow := []apply.Part{resolver}
	if spaces != nil {
		follow = append(follow, spaces, pass.New(p.Env, health), quota.New(p.Env, health, uint32(cfg.ConnectionsPerContainer)),
			voice.New(p.Env, health, p.ID.Name, kernel.Transact), neighbour.New(p.Env))
	}
	loop := apply.New(p.Env, p.ID.Name, cfg.Advertise, p.Path("tables.pb"), env.Tables, forwarder, health, follow...)
	plane := &meshv1.DataplaneResponse{Dataplane: typesv1.Dataplane_DATAPLANE_KERNEL, Serial: 1}
	if lacks != nil {
		plane.Dataplane, plane.Reason = typesv1.Dataplane_DATAPLANE_USERSPACE, lacks.Error()
		p.Env.Log.Warn("the kernel cannot carry published ports, the meshproxy does it itself", "error", lacks)
		loop.UserSpace()
	}
	switch {
	case strange != nil:
		p.Env.Log.Warn("tasks behind ports that the meshproxy carries see this machine as their client", "error", strange)
	case spaces != nil:
		forwarder.Transparent()
		loop.Transparent()
	}
	never := make(chan struct{})
	told := func() (*meshv1.DataplaneResponse, <-chan struct{}) { return plane, never }
	var ring *keys.Ring // a machine in memory has nothing to encrypt with
	if kernel != nil {
		ring = openRing(p, kernel, path.Dir(cfg.MeshSocket))
		loop.Seal(ring)
		told = func() (*meshv1.DataplaneResponse, <-chan struct{}) {
			own, changed := ring.Told()
			own = proto.CloneOf(own)
			own.Dataplane, own.Reason = plane.GetDataplane(), plane.GetReason()
			return own, changed
		}
	}
	loop.Load()
	// Step 4: the line to the cluster that feeds it, and who looks after the machines while it says nothing.
	knocker := knock.New(p.Env, p.ID.Name, loop, health)
	health.Set("dispatcher", false, "waits for the first tables")
	line := &session.Client{
		Env: p.Env, Dispatchers: dispatchers, Dial: dial, Tables: loop, Directory: p.Directory, Trust: p.Keeper.SetTrust, News: knocker.News, Health: health,
	}
	counted.Counted, counted.Forwarder = loop.Counted, forwarder.Counts
	book := count.New(p.Env.Rand.Uint64(), counted)
	show.Mesh, show.Opened = loop, forwarder.Opened
	agent := &local.Service{Count: book.Read, Plane: told, Network: show, Out: func(task string) {
		forwarder.Withdraw(task)
		loop.Withdraw(task)
		if spaces != nil {
			spaces.Withdraw(task)
		}
	}}

	p.Alive("apply", loop.Alive)
	g := run.NewGroup(p.Env.Log)
	p.Go(g)
	g.Go("forward", forwarder.Run)
	g.Go("names", resolver.Run)
	g.Go("apply", loop.Run)
	g.Go("watch", loop.Watch)
	g.Go("session", line.Run)
	g.Go("knock", knocker.Run)
	g.Go("local", func(ctx context.Context) error { return agent.Serve(ctx, p.Env, cfg.MeshSocket) })
	if ring != nil {
		g.Go("keys", func(ctx context.Context) error { return ring.Run(ctx, loop.Again) })
	}
	if spaces != nil {
		g.Go("spaces", func(ctx context.Context) error { return spaces.Serve(ctx, cfg.MeshSocket) })
	}
	if cfg.Ingress {
		own := &ingress.Session{Env: p.Env, Dispatchers: dispatchers, Dial: dial, Count: book.Read, Hello: &dispatcherv1.Hello{
			BootId: bootID, Addresses: cfg.Advertise, Vteps: cfg.Advertise[:1], MeshPort: portOf(p.Addresses()), HearsTimeout: true,
			Description: &typesv1.NodeDescription{
				Hostname: p.Env.Host, Version: run.Version(), FeatureLevel: process.FeatureLevel,
				Platform: &typesv1.Platform{Architecture: runtime.GOARCH, Os: runtime.GOOS},
			},
		}}
		own.Plane = func() *meshv1.DataplaneResponse {
			now, _ := told()
			return now
		}
		g.Go("ingress", own.Run)
	}
	// Ready at once: the machine serves with its last tables while the control plane is away, and an init that waited for
	// the dispatcher would take us for dead.
	if err := p.Env.Notify("READY=1"); err != nil {
		p.Env.Log.Warn("init system not told", "error", err)
	}
	return g.Wait(ctx)
}

// portOf is where the others reach this meshproxy: its own port, unless the config says another.
func portOf(addresses []string) uint32 {
	for _, a := range addresses {
		if _, text, err := net.SplitHostPort(a); err == nil {
			if n, err := strconv.ParseUint(text, 10, 16); err == nil {
				return uint32(n)
			}
		}
	}
	return port
}

// dialPeer makes sure of the peer's name too: a connection that is led to another machine must not take its traffic.
func dialPeer(p *process.Process) forward.DialPeer {
	return func(ctx context.Context, node, address string) (net.Conn, error) {
		raw, err := p.Env.Net.Dial(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		run.SetUserTimeout(raw, peerPatience)
		conn := tls.Client(hop.Below(raw), p.Keeper.ClientTLS(protocol, authzv1.Role_ROLE_MESHPROXY))
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = raw.Close() // the handshake's error says all
			return nil, err
		}
		peer, err := p.Keeper.VerifyServer(conn.ConnectionState().PeerCertificates, authzv1.Role_ROLE_MESHPROXY)
		if err == nil && (peer.ID.Name != node || conn.ConnectionState().NegotiatedProtocol != protocol) {
			err = errs.New(errs.Denied, "%s answers at %s, wanted the meshproxy of %s", peer.ID, address, node)
		}
		if err != nil {
			_ = conn.Close() // refused
			return nil, err
		}
		return conn, nil
	}
}
