package netpass_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoalproject/shoal/internal/netpass"
)

// pair is a connection over a real unix socket.
func pair(t *testing.T) (agent, meshproxy net.Conn) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", netpass.Socket(filepath.Join(t.TempDir(), "mesh.sock")))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	agent, err = (&net.Dialer{}).DialContext(t.Context(), "unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	meshproxy, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close(); meshproxy.Close() })
	return agent, meshproxy
}

// What is handed over is the same open file, and frames that follow each other are not mixed up.
func TestHandOver(t *testing.T) {
	agent, meshproxy := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, f := range []netpass.Frame{{Verb: netpass.Gone, ID: "a.0"}, {Verb: netpass.Have, ID: "b.1", Socket: w}, {Verb: netpass.Gone, ID: "b.1"}} {
		if err := netpass.Send(agent, f); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	agent.Close()
	for _, want := range []netpass.Frame{{Verb: netpass.Gone, ID: "a.0"}, {Verb: netpass.Have, ID: "b.1"}, {Verb: netpass.Gone, ID: "b.1"}} {
		f, err := netpass.Receive(meshproxy)
		if err != nil || f.Verb != want.Verb || f.ID != want.ID || (f.Socket != nil) != (f.Verb == netpass.Have) {
			t.Fatalf("got %+v, %v; want %+v", f, err, want)
		}
		if f.Socket != nil {
			io.WriteString(f.Socket, "through")
			f.Socket.Close()
		}
	}
	if _, err := netpass.Receive(meshproxy); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if data, err := io.ReadAll(r); string(data) != "through" || err != nil {
		t.Errorf("through the file that was handed over came %q, %v", data, err)
	}
}

// A frame without its socket, or with one that it should not have, is refused; so is an id that is none.
func TestNonsense(t *testing.T) {
	agent, meshproxy := pair(t)
	if err := netpass.Send(agent, netpass.Frame{Verb: netpass.Gone}); err == nil {
		t.Error("sent without an id")
	}
	if err := netpass.Send(agent, netpass.Frame{Verb: netpass.Have, ID: "a.0"}); err != nil {
		t.Fatal(err)
	}
	if f, err := netpass.Receive(meshproxy); err == nil {
		t.Errorf("taken without a socket: %+v", f)
	}
}
