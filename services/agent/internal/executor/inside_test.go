package executor

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// What a container writes is kept, each stream by itself, also when the container is gone, for as long as somebody says so.
func TestOutputOutlivesItsContainer(t *testing.T) {
	r := newRig(t)
	r.run(t, r.spec("say.0", "say", "3"))
	r.wait(t, "say.0")
	until(t, "all is read", func() bool { return len(r.lines(t, "say.0", nil)) == 7 })
	if _, err := r.Remove(t.Context(), "say.0", container.Stop{}); err != nil {
		t.Fatal(err)
	}
	two := uint32(2)
	for name, c := range map[string]struct {
		o    *logsv1.LogOptions
		want string
	}{
		"standard error":                  {&logsv1.LogOptions{Streams: []logsv1.LogStream{logsv1.LogStream_LOG_STREAM_STDERR}}, "err 0\nerr 1\nerr 2\n"},
		"the last two of standard output": {&logsv1.LogOptions{Streams: []logsv1.LogStream{logsv1.LogStream_LOG_STREAM_STDOUT}, Tail: &two}, "out 1\nout 2\n"},
	} {
		var got strings.Builder
		for _, l := range r.lines(t, "say.0", c.o) {
			fmt.Fprintf(&got, "%s\n", l.GetText())
		}
		if got.String() != c.want {
			t.Errorf("%s: %q, want %q", name, got.String(), c.want)
		}
	}
	if err := r.SweepLogs(t.Context(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	err := r.ReadLog(t.Context(), "say", &logsv1.ReadLogRequest{}, func(context.Context) bool { return false },
		func(*logsv1.ReadLogResponse) error { return nil })
	if errs.KindOf(err) != errs.NotFound {
		t.Errorf("after the sweep: %v", err)
	}
}

// A container goes on writing when nobody is there: no agent, no containerd. Not a line is lost, and none is late.
func TestOutputIsKeptWhenAgentAndRuntimeAreDead(t *testing.T) {
	r := newRig(t)
	pid := r.run(t, r.spec("tick.0", "tick"))
	until(t, "it writes", func() bool { return len(r.lines(t, "tick.0", nil)) > 3 })
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.stopDaemon(t)
	before := len(r.lines(t, "tick.0", nil))
	until(t, "it has written much more", func() bool { return len(r.lines(t, "tick.0", nil)) > before+500 })
	if err := alive(pid); err != nil {
		t.Errorf("the container has ended: %v", err)
	}
	lines := r.lines(t, "tick.0", nil)
	for i, l := range lines[1:] {
		if want := fmt.Sprintf("tick %d", i); string(l.GetText()) != want {
			t.Fatalf("line %d is %q, want %q", i, l.GetText(), want)
		}
	}
	r.startDaemon(t)
	r.Executor = r.again(t)
}

// loggersOf are the loggers of a container.
func (r *rig) loggersOf(t *testing.T, id string) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		pid, _ := strconv.Atoi(e.Name())
		if err == nil && strings.HasSuffix(string(raw), "\x00logger\x00"+r.logFolder(id)+"\x00") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A container whose logger is killed, again and again, also before the agent that keeps it is there, goes on writing; what it
// writes from then on is kept. It ends when the container does, and so do loggers and keeper. So it is with an input that is
// kept open, for which no shim starts a logger, and with a terminal.
func TestOutputOutlivesItsLogger(t *testing.T) {
	r := newRig(t)
	kinds := map[string]func(*typesv1.ContainerSpec){
		"plain": func(*typesv1.ContainerSpec) {},
		"input": func(c *typesv1.ContainerSpec) { c.OpenStdin = true },
		"tty":   func(c *typesv1.ContainerSpec) { c.Tty = true },
	}
	for kind, with := range kinds {
		t.Run(kind, func(t *testing.T) {
			id := kind + ".0"
			s := r.spec(id, "tick")
			with(s.Container)
			pid := r.run(t, s)
			until(t, "it writes", func() bool { return len(r.lines(t, id, nil)) > 3 })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			kept := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, r.KeepOutput(ctx, id) })
			first := r.loggersOf(t, id)
			for range 2 {
				until(t, "its pipes are held", func() bool { return r.holds(t, id) })
				for _, pid := range r.loggersOf(t, id) {
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
				}
				until(t, "there is another logger", func() bool {
					now := r.loggersOf(t, id)
					return len(now) == 1 && !slices.Equal(now, first)
				})
				first = r.loggersOf(t, id)
				before := len(r.lines(t, id, nil))
				until(t, "what it writes is kept", func() bool { return len(r.lines(t, id, nil)) > before+100 })
			}
			if err := alive(pid); err != nil {
				t.Fatalf("the container has ended: %v", err)
			}
			if _, err := r.Remove(t.Context(), id, container.Stop{}); err != nil {
				t.Fatal(err)
			}
			if r := <-kept; r.Err != nil {
				t.Errorf("its keeper: %v", r.Err)
			}
			until(t, "its logger has ended", func() bool { return len(r.loggersOf(t, id)) == 0 })
		})
	}
}

// holds says that this process has a read end of what a container's logger reads.
func (r *rig) holds(t *testing.T, id string) bool {
	t.Helper()
	loggers := r.loggersOf(t, id)
	if len(loggers) != 1 {
		return false
	}
	read, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/3", loggers[0]))
	if err != nil {
		return false
	}
	own, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(own, func(e os.DirEntry) bool {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		return err == nil && to == read
	})
}

// buffer is written by one goroutine and read by another.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (r *rig) exec(t *testing.T, c container.Command) (code int32, out, err string) {
	t.Helper()
	var stdout, stderr buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	code, fault := r.Exec(ctx, "in.0", c, func() error { return nil })
	if fault != nil {
		t.Fatal(fault)
	}
	return code, stdout.String(), stderr.String()
}

// A command in a container has what was asked for, and tells how it ended.
func TestExec(t *testing.T) {
	r := newRig(t)
	pid := r.run(t, r.spec("in.0", "wait"))

	t.Run("exit code", func(t *testing.T) {
		if code, _, _ := r.exec(t, container.Command{Args: []string{"/probe", "exit", "42"}}); code != 42 {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("input and its end", func(t *testing.T) {
		text := strings.Repeat("0123456789abcdef", 64<<10) // more than any pipe holds
		code, out, stderr := r.exec(t, container.Command{Args: []string{"/probe", "cat"}, Stdin: strings.NewReader(text)})
		if code != 0 || !strings.HasSuffix(out, text) || !strings.Contains(stderr, fmt.Sprintf("read %d <nil>", len(text))) {
			t.Errorf("code %d, %d bytes, stderr %q", code, len(out), stderr)
		}
	})
	t.Run("environment, directory, user", func(t *testing.T) {
		_, out, _ := r.exec(t, container.Command{Args: []string{"/probe", "where"}, Env: []string{"GREETING=hello"}, Dir: "/proc", User: "5:6"})
		if !strings.Contains(out, " hello 5 6") || !strings.Contains(out, "dir /proc") {
			t.Errorf("%q", out)
		}
	})
	t.Run("terminal", func(t *testing.T) {
		sizes := make(chan container.Size, 1)
		var out buffer
		done := run.Async(t.Context(), func(ctx context.Context) (int32, error) {
			return r.Exec(ctx, "in.0", container.Command{
				Args: []string{"/probe", "resized"}, TTY: true, Size: container.Size{Width: 80, Height: 24}, Sizes: sizes, Stdout: &out,
			}, func() error { return nil })
		})
		until(t, "it waits", func() bool { return strings.Contains(out.String(), "waits") })
		sizes <- container.Size{Width: 132, Height: 43}
		if r := <-done; r.Err != nil || r.Value != 0 || !strings.Contains(out.String(), "now 132 43") {
			t.Errorf("%v, %q", r, out.String())
		}
	})
	t.Run("signal", func(t *testing.T) {
		signals := make(chan uint32, 1)
		signals <- uint32(syscall.SIGTERM)
		if code, _, _ := r.exec(t, container.Command{Args: []string{"/probe", "tick"}, Signals: signals}); code != 128+15 {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("the caller goes", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out buffer
		done := run.Async(ctx, func(ctx context.Context) (int32, error) {
			return r.Exec(ctx, "in.0", container.Command{Args: []string{"/probe", "tick"}, Stdout: &out, Stderr: io.Discard}, func() error { return nil })
		})
		until(t, "it ticks", func() bool { return strings.Contains(out.String(), "tick") })
		cancel()
		if got := <-done; !errors.Is(got.Err, context.Canceled) {
			t.Errorf("%v", got)
		}
		list, err := r.Processes(t.Context(), "in.0")
		if err != nil || len(list) != 1 || list[0].GetPid() != pid {
			t.Errorf("left: %v, %v", list, err)
		}
	})
	t.Run("no such program", func(t *testing.T) {
		_, err := r.Exec(t.Context(), "in.0", container.Command{Args: []string{"nothing"}, Stdout: io.Discard, Stderr: io.Discard}, func() error { return nil })
		if errs.KindOf(err) != errs.NotFound {
			t.Errorf("%v", err)
		}
	})
	t.Run("no such container", func(t *testing.T) {
		_, err := r.Exec(t.Context(), "out.0", container.Command{Args: []string{"/probe"}, Stdout: io.Discard, Stderr: io.Discard}, func() error { return nil })
		if errs.KindOf(err) != errs.Precondition {
			t.Errorf("%v", err)
		}
	})
}

// What an agent's death leaves of people's commands is ended by the agent that comes after it, which leaves its own alone, and
// the container.
func TestCommandsOfADeadAgentAreEnded(t *testing.T) {
	r := newRig(t)
	pid := r.run(t, r.spec("in.0", "wait"))
	tick := func(e *Executor) {
		var out buffer
		run.Async(t.Context(), func(ctx context.Context) (int32, error) {
			return e.Exec(ctx, "in.0", container.Command{Args: []string{"/probe", "tick"}, Stdout: &out, Stderr: io.Discard}, func() error { return nil })
		})
		until(t, "it ticks", func() bool { return strings.Contains(out.String(), "tick") })
	}
	dead := r.again(t)
	tick(dead)
	if err := dead.Close(); err != nil { // it can tell containerd nothing any more
		t.Fatal(err)
	}
	tick(r.Executor)
	processes := func() (pids []int64) {
		list, err := r.Processes(t.Context(), "in.0")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			pids = append(pids, p.GetPid())
		}
		return pids
	}
	if before := processes(); len(before) != 3 {
		t.Fatalf("%v run", before)
	}
	if err := r.EndCommands(t.Context(), "in.0"); err != nil {
		t.Fatal(err)
	}
	if after := processes(); len(after) != 2 || after[0] != pid {
		t.Errorf("%v run, want the container's %d and the new agent's command", after, pid)
	}
	if err := r.EndCommands(t.Context(), "nobody.0"); err != nil {
		t.Errorf("of a container that is not there: %v", err)
	}
}

func archive(t *testing.T, entries ...*tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.Name
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// Files come into a container and out of it, and no name or link leads out of its file system.
func TestCopy(t *testing.T) {
	r := newRig(t)
	r.run(t, r.spec("in.0", "wait"))
	outside := t.TempDir()
	_, err := r.Put(t.Context(), "in.0", &logsv1.CopyPut{Dir: "/dev/shm"}, archive(t,
		&tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o750},
		&tar.Header{Typeflag: tar.TypeReg, Name: "d/plain", Mode: 0o4640, Uid: 7, Gid: 7},
		&tar.Header{Typeflag: tar.TypeReg, Name: "../../../above", Mode: 0o600},
		&tar.Header{Typeflag: tar.TypeSymlink, Name: "out", Linkname: outside},
		&tar.Header{Typeflag: tar.TypeLink, Name: "second", Linkname: "d/plain"},
	))
	if err != nil {
		t.Fatal(err)
	}
	if _, out, _ := r.exec(t, container.Command{Args: []string{"/probe", "file", "/dev/shm/second"}}); !strings.Contains(out, "file d/plain <nil>") {
		t.Errorf("%q", out)
	}
	if _, out, _ := r.exec(t, container.Command{Args: []string{"/probe", "file", "/dev/shm/above"}}); !strings.Contains(out, "file ../../../above <nil>") {
		t.Errorf("a name that leads up: %q", out)
	}
	// The link points at a folder of the machine: inside the container there is none of that name.
	_, err = r.Put(t.Context(), "in.0", &logsv1.CopyPut{Dir: "/dev/shm/out"}, archive(t, &tar.Header{Typeflag: tar.TypeReg, Name: "x"}))
	if errs.KindOf(err) != errs.NotFound {
		t.Errorf("through a link that leads out: %v", err)
	}
	for name, bad := range map[string]*bytes.Buffer{
		"device": archive(t, &tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}),
		"noise":  bytes.NewBufferString(strings.Repeat("noise", 1000)),
	} {
		if _, err := r.Put(t.Context(), "in.0", &logsv1.CopyPut{Dir: "/dev/shm"}, bad); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	var got bytes.Buffer
	var stat *logsv1.CopyStat
	err = r.Get(t.Context(), "in.0", &logsv1.CopyGet{Path: "/dev/shm"}, func(s *logsv1.CopyStat) error { stat = s; return nil }, &got)
	if err != nil || stat.GetName() != "shm" || !stat.GetDir() {
		t.Fatalf("%v, %v", stat, err)
	}
	names := map[string]*tar.Header{}
	for in := tar.NewReader(&got); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names[h.Name] = h
	}
	if h := names["shm/d/plain"]; h == nil || h.Mode != 0o640 || h.Uid != 0 {
		t.Errorf("the file came back as %+v", h)
	}
	if h := names["shm/out"]; h == nil || h.Linkname != outside {
		t.Errorf("the link came back as %+v", h)
	}
	err = r.Get(t.Context(), "in.0", &logsv1.CopyGet{Path: "/dev/shm/out", Follow: true}, func(*logsv1.CopyStat) error { return nil }, &got)
	if errs.KindOf(err) != errs.NotFound {
		t.Errorf("following a link that leads out: %v", err)
	}
}

// What a container uses is told from its group and its processes.
func TestUsage(t *testing.T) {
	r := newRig(t)
	s := r.spec("busy.0", "tick")
	s.Resources = &typesv1.ResourceRequirements{Limits: &typesv1.Resources{MemoryBytes: 64 << 20}}
	pid := r.run(t, s)
	until(t, "it has used something", func() bool {
		u, err := r.Usage(t.Context(), "busy.0")
		return err == nil && u.GetCpu().AsDuration() > 0 && u.GetMemory() > 0 && u.GetPids() > 0 && u.GetMemoryLimit() == 64<<20
	})
	until(t, "its one process is listed", func() bool {
		list, err := r.Processes(t.Context(), "busy.0")
		return err == nil && len(list) == 1 && list[0].GetPid() == pid && list[0].GetCommand() == "/probe tick" &&
			time.Since(list[0].GetStarted().AsTime()) < time.Minute
	})
}
