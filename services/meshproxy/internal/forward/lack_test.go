package forward_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
)

// warnings are what a process logs from Warn on.
type warnings chan string

func (w warnings) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

func heeded(t *testing.T) (run.Env, warnings) {
	t.Helper()
	env, w := machine(t), make(warnings, 1000)
	env.Log = slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return env, w
}

func (w warnings) next(t *testing.T) string {
	t.Helper()
	select {
	case line := <-w:
		return line
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was said in 10 s")
		return ""
	}
}

// TestDoorWithoutDescriptors: clients wait in the kernel's queue, a person hears once what to do, and they are served when there are
// descriptors again.
func TestDoorWithoutDescriptors(t *testing.T) {
	env, said := heeded(t)
	r := newRigOn(t, env)
	p := publish(t, "tcp", r.task("t", "a", nil))
	r.apply(p)
	if _, err := ask(at("127.0.0.1", p)); err != nil { // and the loops have all that they need
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "client")
	t.Cleanup(func() { file.Close() })
	restore := withoutDescriptors(t)
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(p.Port)})
	first := said.next(t)
	var more string
	select {
	case more = <-said:
	case <-time.After(300 * time.Millisecond): // in which it tries six times
	}
	restore()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(first, "LimitNOFILE") || more != "" {
		t.Errorf("it says\n%sand then\n%swant one line that names LimitNOFILE", first, more)
	}
	client, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.SetDeadline(time.Now().Add(5 * time.Second))
	if got, err := io.ReadAll(client); string(got) != "t" || err != nil {
		t.Errorf("who waited heard %q, %v", got, err)
	}
}

// withoutDescriptors has this process get no more, until restore.
func withoutDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	restore = func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(restore)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	return restore
}

// poor is a network with no descriptor for the next few connections.
type poor struct {
	run.Network
	lacks atomic.Int32
}

func (p *poor) Connect(to netip.AddrPort, from netip.Addr) (int, error) {
	if p.lacks.Add(-1) >= 0 {
		return -1, os.NewSyscallError("socket", unix.EMFILE)
	}
	return run.Connect(p.Network, to, from)
}

func (p *poor) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if p.lacks.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("socket", unix.EMFILE)}
	}
	return p.Network.Dial(ctx, network, address)
}

// TestTaskIsNotBlamedForOurLack: a client waits until its task can be dialled, and the task gets its turns as before.
func TestTaskIsNotBlamedForOurLack(t *testing.T) {
	env, said := heeded(t)
	n := &poor{Network: env.Net}
	env.Net = n
	r := newRigOn(t, env)
	p := publish(t, "tcp", r.task("one", "a", nil), r.task("two", "a", nil))
	r.apply(p)
	n.lacks.Store(2) // by a loop, and by who takes over from it
	got := map[string]int{}
	for range 4 {
		name, err := ask(at("127.0.0.1", p))
		if err != nil {
			t.Fatal(err)
		}
		got[name]++
	}
	if got["one"] != 2 || got["two"] != 2 {
		t.Errorf("answers by %v, want two by each", got)
	}
	if line := said.next(t); !strings.Contains(line, "LimitNOFILE") || len(said) > 0 {
		t.Errorf("said %q and %d more, want one line that names LimitNOFILE", line, len(said))
	}
}
