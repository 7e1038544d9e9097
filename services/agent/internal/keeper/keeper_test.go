package keeper

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/run"
)

// TestMain is also the logger and the container of the tests.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 3 && os.Args[1] == "logger":
		os.Exit(logger(os.Args[2]))
	case len(os.Args) == 2 && os.Args[1] == "container":
		os.Exit(talk())
	}
	os.Exit(m.Run())
}

// logger appends what it reads to a file.
func logger(folder string) int {
	from := os.NewFile(3, "stdout")
	to, err := os.OpenFile(filepath.Join(folder, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 1
	}
	_ = os.NewFile(5, "ready").Close()
	if _, err := io.Copy(to, from); err != nil {
		return 1
	}
	return 0
}

// talk writes lines until that fails, or its input ends.
func talk() int {
	stop := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(stop) }()
	tick := time.NewTicker(time.Millisecond)
	for i := 0; ; i++ {
		select {
		case <-stop:
			return 0
		case <-tick.C:
			if _, err := fmt.Printf("line %d\n", i); err != nil {
				return 1
			}
		}
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long until %s", what)
		}
	}
}

// A container whose logger is killed writes on, and another logger goes on where that one ended: no line is lost that it had
// not taken. With the container its loggers and its keeper end.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0], "container")
	c.Stdout = w
	stop, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	ended := run.Async(t.Context(), func(context.Context) (struct{}, error) { return struct{}{}, c.Wait() })
	o := Output{Program: os.Args[0], Folder: dir, PID: int64(c.Process.Pid)}
	if _, err := spawn(o, []*os.File{r, r}); err != nil { // as the shim does
		t.Fatal(err)
	}
	_ = r.Close()
	gone := make(chan struct{})
	kept := run.Async(t.Context(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, Keep(ctx, slog.New(slog.DiscardHandler), o, func(context.Context) bool {
			select {
			case <-gone:
				return false
			default:
				return true
			}
		})
	})
	lines := func() int {
		raw, _ := os.ReadFile(filepath.Join(dir, "log"))
		return strings.Count(string(raw), "\n")
	}
	for range 3 {
		before := lines()
		until(t, "its lines are kept", func() bool { return lines() > before+20 && pidOf(o) != 0 && holds(pidOf(o)) })
		pid := pidOf(o)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, "another logger is there", func() bool { now := pidOf(o); return now != 0 && now != pid })
	}
	close(gone)
	if err := stop.Close(); err != nil {
		t.Fatal(err)
	}
	if r := <-ended; r.Err != nil {
		t.Errorf("the container: %v", r.Err)
	}
	if r := <-kept; r.Err != nil {
		t.Errorf("the keeper: %v", r.Err)
	}
	if pid := pidOf(o); pid != 0 {
		t.Errorf("logger %d is left", pid)
	}
}

// pidOf is the logger that is found; 0: none.
func pidOf(o Output) int {
	p := find(o)
	if p == nil {
		return 0
	}
	defer p.close()
	return p.pid
}

// TestNobodyElseIsTheLogger: a process of a container that calls itself a logger is none: else the agent would hold its files, and leave
// the container without one.
func TestNobodyElseIsTheLogger(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes a namespace")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	folder := t.TempDir()
	for _, c := range []struct {
		flags uintptr
		found bool
	}{{syscall.CLONE_NEWPID, false}, {0, true}} {
		ready, tell, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "logger", folder)
		cmd.ExtraFiles, cmd.SysProcAttr = []*os.File{r, r, tell}, &syscall.SysProcAttr{Cloneflags: c.flags}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = tell.Close()
		_, _ = ready.Read(make([]byte, 1))
		if got := pidOf(Output{Folder: folder}); (got == cmd.Process.Pid) != c.found || !c.found && got != 0 {
			t.Errorf("flags %x: found %d, it is %d", c.flags, got, cmd.Process.Pid)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = ready.Close()
	}
	_ = w.Close()
}

// holds says that this process has what a logger reads.
func holds(logger int) bool {
	read, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/3", logger))
	if err != nil {
		return false
	}
	own, _ := os.ReadDir("/proc/self/fd")
	for _, e := range own {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == read {
			return true
		}
	}
	return false
}

// A logger that dies before anybody watches it is taken away: in a loop of such deaths nothing piles up.
func TestSpawnLeavesNothing(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p, err := spawn(Output{Program: os.Args[0], Folder: filepath.Join(t.TempDir(), "missing")}, []*os.File{null, null})
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	until(t, "it is taken away", func() bool { return syscall.Kill(p.pid, 0) == syscall.ESRCH })
}
