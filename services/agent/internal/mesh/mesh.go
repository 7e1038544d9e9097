// Package mesh talks to this machine's own meshproxy, over its unix socket.
//
// It owns that connection. It must never be needed: what it says early comes to the meshproxy through the cluster too. A
// Proxy is safe for concurrent use.
package mesh

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
)

// Proxy is the local meshproxy.
type Proxy struct {
	conn   *grpc.ClientConn
	client meshv1.LocalServiceClient
	spaces *Spaces // nil: the containers' networks are not the kernel's

	mu    sync.Mutex // guards below
	asked bool
	plane *meshv1.DataplaneResponse
}

// New makes the client of the socket; it dials when there is something to say. The socket's mode is the authorization, so
// there is no TLS on it. Sockets are the containers' namespaces; nil where they have none.
func New(env run.Env, socket string, sockets Sockets) (*Proxy, error) {
	conn, err := grpc.NewClient("passthrough:///"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return env.Net.Dial(ctx, "unix", addr) }),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithUnaryInterceptor(errs.UnaryClient()), grpc.WithStreamInterceptor(errs.StreamClient()),
	)
	if err != nil {
		return nil, fmt.Errorf("make the client of the meshproxy: %w", err)
	}
	p := &Proxy{conn: conn, client: meshv1.NewLocalServiceClient(conn)}
	if sockets != nil {
		p.spaces = newSpaces(env, socket, sockets)
	}
	return p, nil
}

// Close ends the connection.
func (p *Proxy) Close() error { return p.conn.Close() }

// Withdraw takes a task out of this machine's tables.
func (p *Proxy) Withdraw(ctx context.Context, taskID string) error {
	_, err := p.client.Withdraw(ctx, &meshv1.WithdrawRequest{TaskId: taskID})
	return err
}

// Connections tells what this machine's mesh has led to services that scale by it.
func (p *Proxy) Connections(ctx context.Context) (*meshv1.ConnectionsResponse, error) {
	return p.client.Connections(ctx, &meshv1.ConnectionsRequest{})
}

// planeWait bounds the first wait for a meshproxy that starts beside the agent.
const planeWait = time.Second

// followWait bounds one wait for another answer, and followRest is the pause after one that did not come.
const (
	followWait = time.Minute
	followRest = time.Second
)

// Dataplane says what carries the machine's published ports and what encrypts, nil if the meshproxy does not say it. It is waited for
// the first time only.
func (p *Proxy) Dataplane(ctx context.Context) *meshv1.DataplaneResponse {
	ctx, cancel := context.WithTimeout(ctx, planeWait)
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.plane == nil {
		if plane, err := p.client.Dataplane(ctx, &meshv1.DataplaneRequest{}, grpc.WaitForReady(!p.asked)); err == nil {
			p.plane = plane
		}
		p.asked = true
	}
	return p.plane
}

// Follow hears when that changes, as when another key is used, and calls changed; until ctx ends. A meshproxy that was replaced may
// say the same under another number: then nothing has changed.
func (p *Proxy) Follow(ctx context.Context, changed func()) error {
	seen := uint64(0)
	for ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, followWait)
		plane, err := p.client.Dataplane(limited, &meshv1.DataplaneRequest{Seen: seen}, grpc.WaitForReady(true))
		cancel()
		if err != nil {
			// Nothing new, or the meshproxy is away: it is waited for, not asked again and again. What a new one says is heard whatever its number.
			if seen = 0; run.Sleep(ctx, followRest) != nil {
				return nil
			}
			continue
		}
		seen = plane.GetSerial()
		p.mu.Lock()
		was := p.plane
		p.plane = plane
		p.mu.Unlock()
		if !same(was, plane) {
			changed()
		}
	}
	return nil
}

func same(a, b *meshv1.DataplaneResponse) bool {
	if a == nil {
		return false
	}
	a, b = proto.CloneOf(a), proto.CloneOf(b)
	a.Serial, b.Serial = 0, 0
	return proto.Equal(a, b)
}

// Run hands over the containers' namespaces until ctx ends.
func (p *Proxy) Run(ctx context.Context) error {
	if p.spaces == nil {
		<-ctx.Done()
		return nil
	}
	return p.spaces.run(ctx)
}

// Wire tells of a container that is about to run, and waits until its tables are in force.
func (p *Proxy) Wire(ctx context.Context, id string) error {
	if p.spaces == nil {
		return nil
	}
	return p.spaces.wire(ctx, id)
}

// Offer hands over a container's network namespace. A meshproxy that comes later is handed all there are.
func (p *Proxy) Offer(id string) error {
	if p.spaces == nil {
		return nil
	}
	return p.spaces.hand(id)
}

// Unwire has the meshproxy let go of a container that has ended, and waits for it where the namespace is another tool's.
func (p *Proxy) Unwire(ctx context.Context, id string) error {
	if p.spaces == nil {
		return nil
	}
	return p.spaces.unwire(ctx, id)
}
