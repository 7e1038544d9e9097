package testx

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"

	"google.golang.org/grpc/test/bufconn"
)

// Network is a run.Network of one host in memory, for unit tests: streams only, an address is just a name, no faults.
// The simulation's network is test/sim/simnet.
type Network struct {
	mu        sync.Mutex // guards listeners
	listeners map[string]*listener
}

// NewNetwork has no listeners.
func NewNetwork() *Network { return &Network{listeners: map[string]*listener{}} }

type listener struct {
	*bufconn.Listener
	net  *Network
	name string
}

// bufferSize is that of one direction of a connection.
const bufferSize = 256 << 10

// Listen takes the address exactly as it is dialled.
func (n *Network) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	l := &listener{Listener: bufconn.Listen(bufferSize), net: n, name: address}
	n.listeners[address] = l
	return l, ctx.Err()
}

// ListenPacket is not for unit tests.
func (n *Network) ListenPacket(context.Context, string, string) (net.PacketConn, error) {
	return nil, &net.OpError{Op: "listen", Net: "udp", Err: errors.ErrUnsupported}
}

// Dial is refused where nobody listens.
func (n *Network) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	return l.DialContext(ctx)
}

func (l *listener) Close() error {
	l.net.mu.Lock()
	delete(l.net.listeners, l.name)
	l.net.mu.Unlock()
	return l.Listener.Close()
}
