package space

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/netpass"
	"github.com/shoalproject/shoal/internal/testx"
)

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
