package run_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
)

func TestMachineFilesKeepTheContract(t *testing.T) {
	dir := t.TempDir()
	files := run.Machine("test").Files
	testx.FilesContract(t, files, filepath.ToSlash(filepath.Join(dir, "new", "root")))
	left, err := filepath.Glob(filepath.Join(dir, "new", "root", "*", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %q, %v", left, err)
	}
}

func TestMachineWriteLeavesTheOldFileWhenItFails(t *testing.T) {
	dir := t.TempDir()
	files := run.Machine("test").Files
	name := filepath.Join(dir, "key")
	if err := files.Write(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Write(name, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if os.SameFile(before, after) {
		t.Error("the file was written in place: a crash would leave half of it")
	}
	// What a crash in the middle of a write leaves behind is not shown.
	if err := os.WriteFile(filepath.Join(dir, ".shoal-tmp-123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if names, err := files.List(dir); !slices.Equal(names, []string{"key"}) || err != nil {
		t.Errorf("list %q, %v", names, err)
	}
}

func TestMachineUnixSocketReplacesADeadOneOnly(t *testing.T) {
	env := run.Machine("test")
	path := filepath.Join(t.TempDir(), "gone after a boot", "s.sock")
	first, err := env.Net.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := env.Net.Listen(t.Context(), "unix", path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the socket of a live process was taken: %v", err)
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false) // as SIGKILL leaves it
	first.Close()
	second, err := env.Net.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	c, err := env.Net.Dial(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := env.Net.Listen(t.Context(), "unix", file); err == nil {
		t.Error("a file that is no socket was replaced")
	}
}

func TestMachineNetwork(t *testing.T) {
	env := run.Machine("test")
	l, err := env.Net.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := env.Net.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	l.Close()
	if _, err := env.Net.Dial(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial to nobody: %v", err)
	}
	p, err := env.Net.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := env.Net.Dial(ctx, "tcp", "127.0.0.1:1"); err == nil {
		t.Error("dial with an ended context worked")
	}
}

func TestNotifySpeaksToTheInitSystem(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := run.Machine("test").Notify("READY=1"); err != nil {
		t.Errorf("with nobody to notify: %v", err)
	}
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := run.Machine("test").Notify("READY=1"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	_ = l.SetReadDeadline(time.Now().Add(5 * time.Second))
	k, err := l.Read(buf)
	if err != nil || string(buf[:k]) != "READY=1" {
		t.Errorf("heard %q, %v", buf[:k], err)
	}
}

func TestOrMachineKeepsWhatIsSet(t *testing.T) {
	mine := testx.NewFiles()
	env := run.Env{Host: "h", Files: mine}.OrMachine("test")
	if env.Host != "h" || env.Files != run.Files(mine) {
		t.Error("a set field was replaced")
	}
	if env.Log == nil || env.Net == nil || env.Now == nil || env.Ticker == nil || env.Rand == nil || env.Metrics == nil || env.Notify == nil {
		t.Errorf("a field is nil: %+v", env)
	}
	if tick := env.Ticker(time.Millisecond); tick != nil {
		<-tick.C()
		tick.Stop()
	}
}

func TestRand(t *testing.T) {
	a, b, kernel := run.NewRand(5), run.NewRand(5), run.Machine("test").Rand
	if a.Uint64() != b.Uint64() || a.Float64() != b.Float64() {
		t.Error("the same seed gives different choices")
	}
	x, y := make([]byte, 40), make([]byte, 40)
	for _, r := range []*run.Rand{a, b, kernel} {
		if k, err := r.Read(x); k != len(x) || err != nil {
			t.Errorf("read %d, %v", k, err)
		}
		if _, _ = r.Read(y); bytes.Equal(x, y) {
			t.Error("two reads are the same")
		}
		for range 100 {
			if v := r.IntN(3); v < 0 || v > 2 {
				t.Errorf("IntN(3) is %d", v)
			}
			if d := r.Jitter(10*time.Second, 0.1); d < 9*time.Second || d >= 11*time.Second {
				t.Errorf("jitter %s", d)
			}
		}
		if r.IntN(0) != 0 {
			t.Error("IntN(0)")
		}
	}
}
