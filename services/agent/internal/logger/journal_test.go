package logger

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	"github.com/shoalproject/shoal/services/agent/internal/journalread"
)

const (
	journald = "/lib/systemd/systemd-journald"
	inside   = "SHOAL_TEST_JOURNAL" // set in the process that has a journal of its own
)

// What a container with the driver journald says comes back from a real journal, with its streams, and is followed until the
// container has ended.
func TestJournalComesBack(t *testing.T) {
	if os.Getenv(inside) != "" {
		comeBack(t)
		return
	}
	if _, err := os.Stat(journald); os.Getuid() != 0 || err != nil {
		t.Skip("needs root, and systemd's journald, which it starts on file systems of its own")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", os.Args[0], "-test.run=^TestJournalComesBack$")
	c.Env = append(os.Environ(), inside+"=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func comeBack(t *testing.T) {
	for _, dir := range []string{"/run", "/var/log"} {
		if err := unix.Mount("shoal-test", dir, "tmpfs", 0, "size=16m"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(journalSocket), 0o755); err != nil {
		t.Fatal(err)
	}
	daemon := exec.CommandContext(t.Context(), journald)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = daemon.Process.Kill(), daemon.Wait() }()
	eventually(t, "journald listens", func() bool { _, err := os.Stat(journalSocket); return err == nil })

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	er, ew, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sink := newJournal(Settings{Driver: Journal, Fields: map[string]string{"SHOAL_TASK_ID": "t1"}})
	kept := run.Async(t.Context(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, Keep(ctx, Pipes{Stdout: r, Stderr: er}, sink)
	})
	program, err := journalread.Program()
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	gone := make(chan struct{})
	followed := run.Async(t.Context(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, journalread.Read(ctx, program, journalread.Query{
			Field: "SHOAL_TASK_ID", Value: "t1", Options: &logsv1.LogOptions{Follow: true},
			Live: func(context.Context) bool {
				select {
				case <-gone:
					return false
				default:
					return true
				}
			},
		}, func(resp *logsv1.ReadLogResponse) error {
			for _, l := range resp.GetLines() {
				lines <- fmt.Sprint(l.GetStream(), " ", string(l.GetText()))
			}
			return nil
		})
	})
	for i := range 3 {
		fmt.Fprintf(w, "line %d\n", i)
	}
	fmt.Fprintln(ew, "bad")
	var got []string
	for range 4 {
		select {
		case l := <-lines:
			got = append(got, l)
		case <-time.After(15 * time.Second):
			t.Fatalf("only %q came back", got)
		}
	}
	slices.Sort(got)
	want := []string{"LOG_STREAM_STDERR bad", "LOG_STREAM_STDOUT line 0", "LOG_STREAM_STDOUT line 1", "LOG_STREAM_STDOUT line 2"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	_, _ = w.Close(), ew.Close()
	close(gone)
	if r := <-kept; r.Err != nil {
		t.Error(r.Err)
	}
	if r := <-followed; r.Err != nil {
		t.Error(r.Err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(20*time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long until %s", what)
		}
	}
}
