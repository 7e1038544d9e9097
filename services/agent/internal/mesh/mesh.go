// Package mesh talks to this machine's own meshproxy, over its unix socket.
//
// It owns that connection. It must never be needed: what it says early comes to the meshproxy through the cluster too. A
// Proxy is safe for concurrent use.
package mesh

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
)

// Proxy is the local meshproxy.
type Proxy struct {
	conn   *grpc.ClientConn
	client meshv1.LocalServiceClient
}

// New makes the client of the socket; it dials when there is something to say. The socket's mode is the authorization, so
// there is no TLS on it.
func New(env run.Env, socket string) (*Proxy, error) {
	conn, err := grpc.NewClient("passthrough:///"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return env.Net.Dial(ctx, "unix", addr) }),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithUnaryInterceptor(errs.UnaryClient()),
	)
	if err != nil {
		return nil, fmt.Errorf("make the client of the meshproxy: %w", err)
	}
	return &Proxy{conn: conn, client: meshv1.NewLocalServiceClient(conn)}, nil
}

// Close ends the connection.
func (p *Proxy) Close() error { return p.conn.Close() }

// Withdraw takes a task out of this machine's tables.
func (p *Proxy) Withdraw(ctx context.Context, taskID string) error {
	_, err := p.client.Withdraw(ctx, &meshv1.WithdrawRequest{TaskId: taskID})
	return err
}
