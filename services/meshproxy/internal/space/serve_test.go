package space

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/netpass"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
)

// poor is a network whose listeners have no descriptor for the first who comes.
type poor struct {
	run.Network
	again chan struct{} // closed when the next is waited for
}

func (p poor) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	l, err := p.Network.Listen(ctx, network, address)
	return &poorListener{Listener: l, again: p.again}, err
}

type poorListener struct {
	net.Listener
	again  chan struct{}
	lacked bool
}

func (l *poorListener) Accept() (net.Conn, error) {
	if !l.lacked {
		l.lacked = true
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", unix.EMFILE)}
	}
	close(l.again)
	return l.Listener.Accept()
}

// TestAgentWaitsForDescriptors: a lack of them does not end the meshproxy, and with it the connections that it carries.
func TestAgentWaitsForDescriptors(t *testing.T) {
	env := testx.Env(t)
	n := poor{env.Net, make(chan struct{})}
	env.Net = n
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, New(env, 100).Serve(ctx, "/run/mesh.sock")
	})
	select {
	case <-n.again:
		cancel()
	case got := <-ended:
		t.Fatal(got.Err)
	}
	if got := <-ended; got.Err != nil {
		t.Error(got.Err)
	}
}

// TestLetsGo: an agent that says that a container has gone hears when nothing of it is held any more.
func TestLetsGo(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(t.TempDir(), "spaces.sock"))
	must(err)
	defer l.Close()
	agent, err := (&net.Dialer{}).DialContext(t.Context(), "unix", l.Addr().String())
	must(err)
	conn, err := l.Accept()
	must(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer conn.Close()
		New(testx.Env(t), 100).listen(conn)
	}()
	defer func() { agent.Close(); <-done }()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	given, kept := os.NewFile(uintptr(pair[0]), "given"), pair[1]
	defer unix.Close(kept)
	must(netpass.Send(agent, netpass.Frame{Verb: netpass.Have, ID: "g.0", Socket: given}))
	must(given.Close())
	must(netpass.Send(agent, netpass.Frame{Verb: netpass.Gone, ID: "g.0"}))
	if f, err := netpass.Receive(agent); err != nil || f.Verb != netpass.Gone || f.ID != "g.0" {
		t.Fatalf("heard %+v, %v", f, err)
	}
	if n, _, err := unix.Recvfrom(kept, make([]byte, 1), unix.MSG_DONTWAIT); n != 0 || err != nil {
		t.Errorf("it still holds the socket: %d, %v", n, err)
	}
}
