package health

import (
	"cmp"
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

// SocketFile is the socket's name in the process's folder, which only the process's user and root may enter.
const SocketFile = "health.sock"

const (
	// askLimit is how long a process may take to say how it is: one that is stuck or stopped is not well.
	askLimit = 2 * time.Second
	// listenAgain is how long after a failure the socket is tried again, on a full disk for one.
	listenAgain = 5 * time.Second
	// partsKey is the header of a Check of the whole process: one value a part, its name and, after a colon, what it waits
	// for. grpc.health.v1 itself has no place for words.
	partsKey = "shoal-parts-bin"
)

// Part is one part of a process.
type Part struct {
	// Name is what the process calls it.
	Name string
	// Well says whether it does its work.
	Well bool
	// Why is what it waits for, if it is not well.
	Why string
}

// List returns all parts by name.
func (s *Server) List() []Part {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Part, 0, len(s.parts))
	for _, name := range slices.Sorted(maps.Keys(s.parts)) {
		out = append(out, Part{Name: name, Well: s.parts[name].ok, Why: s.parts[name].why})
	}
	return out
}

// ServeSocket makes a task that serves grpc.health.v1 in clear on a unix socket, until ctx ends. A socket that can't be
// made is tried again: the process's own work does not depend on it.
func ServeSocket(env run.Env, s *Server, path string) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			l, err := env.Net.Listen(ctx, "unix", path)
			if err == nil {
				return serveSocket(ctx, env, s, l)
			}
			env.Log.Warn("health socket not made, trying again", "socket", path, "error", err)
			if run.Sleep(ctx, listenAgain) != nil {
				return nil
			}
		}
	}
}

func serveSocket(ctx context.Context, env run.Env, s *Server, l net.Listener) error {
	server := grpc.NewServer(grpc.ConnectionTimeout(askLimit))
	healthpb.RegisterHealthServer(server, inWords{s.rpc, s})
	g := run.NewGroup(env.Log)
	g.Go("serve", func(context.Context) error { return server.Serve(l) })
	g.Go("stop", func(ctx context.Context) error {
		<-ctx.Done()
		server.Stop() // it removes the socket, too
		return nil
	})
	return g.Wait(ctx)
}

// inWords adds the parts to the answer about the whole process.
type inWords struct {
	healthpb.HealthServer
	s *Server
}

// Check answers as grpc.health.v1 says, with the parts in a header.
func (w inWords) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if req.GetService() == "" {
		md := metadata.MD{}
		for _, p := range w.s.List() {
			md.Append(partsKey, p.line())
		}
		if err := grpc.SetHeader(ctx, md); err != nil {
			return nil, err
		}
	}
	return w.HealthServer.Check(ctx, req)
}

// line is "name" of a part that is well, else "name:why". No name has a colon.
func (p Part) line() string {
	if p.Well {
		return p.Name
	}
	return p.Name + ":" + p.Why
}

func partOf(line string) Part {
	name, why, waits := strings.Cut(line, ":")
	return Part{Name: name, Well: !waits, Why: why}
}

// Ask asks the process behind a health socket how it is, and returns its parts by name. Errors: Unavailable (no process
// answers within 2 s, or not all parts are well: then the parts are returned as well).
func Ask(ctx context.Context, env run.Env, path string) ([]Part, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+SocketFile, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return env.Net.Dial(ctx, "unix", path)
		}))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var header metadata.MD
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Header(&header))
	if ctx.Err() != nil {
		return nil, errs.New(errs.Unavailable, "the process did not say within %s how it is, at %s", askLimit, path)
	}
	if err != nil {
		return nil, errs.New(errs.Unavailable, "no process answers at %s; does it run? %w", path, err)
	}
	var parts []Part
	waits := 0
	for _, line := range header.Get(partsKey) {
		parts = append(parts, partOf(line))
		if !parts[len(parts)-1].Well {
			waits++
		}
	}
	slices.SortFunc(parts, func(a, b Part) int { return cmp.Compare(a.Name, b.Name) })
	if waits > 0 || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return parts, errs.New(errs.Unavailable, "%d of %d parts are not well", waits, len(parts))
	}
	return parts, nil
}
