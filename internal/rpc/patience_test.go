package rpc_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
)

// heard is the machine's network, which tells where it listens and what came.
type heard struct {
	run.Network
	at    chan string
	conns chan net.Conn
}

func (h heard) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	l, err := h.Network.Listen(ctx, network, address)
	if err == nil {
		h.at <- l.Addr().String()
	}
	return heardListener{l, h.conns}, err
}

type heardListener struct {
	net.Listener
	conns chan net.Conn
}

func (l heardListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.conns <- c
	}
	return c, err
}

// A protocol of its own may have its own patience with a peer that does not answer: the door's is for calls.
func TestProtocolsHaveTheirOwnPatience(t *testing.T) {
	w := newWorld(t)
	h := heard{run.Env{}.OrMachine("test").Net, make(chan string, 1), make(chan net.Conn, 1)}
	w.env.Net = h
	m := &member{keeper: w.keeper(t, gatewayRole, "g")}
	m.server = rpc.NewServer(w.env, m.keeper)
	const patience = 71 * time.Second
	done := make(chan struct{})
	m.server.HandleALPN("shoal-echo/1", func(_ context.Context, conn *tls.Conn, _ identity.Peer) {
		run.SetUserTimeout(conn.NetConn(), patience)
		done <- struct{}{} // it is read
		<-done
	})
	m.start(t, "127.0.0.1:0")
	raw, err := h.Dial(t.Context(), "tcp", <-h.at)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	config := w.keeper(t, schedulerRole, "s").ClientTLS("shoal-echo/1", gatewayRole)
	if err := tls.Client(raw, config).HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-done
	defer close(done)
	socket, err := (<-h.conns).(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var ms int
	var fault error
	err = socket.Control(func(fd uintptr) { ms, fault = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) })
	if got := time.Duration(ms) * time.Millisecond; err != nil || fault != nil || got != patience {
		t.Errorf("the socket's is %s, want %s, %v %v", got, patience, err, fault)
	}
}
