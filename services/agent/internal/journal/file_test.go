package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/journal"
	"github.com/shoalproject/shoal/services/agent/internal/journal/journaltest"
)

// disk is a journal's folder. Its crash copies the file away from under the open journal, as a power cut would.
type disk struct{ path string }

func (d *disk) Open(t *testing.T) journal.Journal {
	t.Helper()
	j, err := journal.Open(d.path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func (d *disk) Crash(t *testing.T, _ journal.Journal) {
	t.Helper()
	data, err := os.ReadFile(d.path)
	if err != nil {
		t.Fatal(err)
	}
	d.path = filepath.Join(t.TempDir(), "journal.db")
	if err := os.WriteFile(d.path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestMain is also an agent that opens a journal and reads it.
func TestMain(m *testing.M) {
	if path := os.Getenv("OPEN_JOURNAL"); path != "" {
		j, err := journal.Open(path, quiet())
		if err == nil {
			_, err = j.Load(context.Background())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Whatever has become of the file, an agent that is started again and again opens it, or another one, within three starts:
// also when the library ends the process.
func TestEveryDamageIsSurvived(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole.db")
	j, err := journal.Open(whole, quiet())
	if err != nil {
		t.Fatal(err)
	}
	tasks := map[string]journal.Record{}
	for i := range 300 {
		tasks[fmt.Sprintf("task-%d", i)] = journal.Record{Observed: &typesv1.TaskObserved{Seq: uint64(i), Message: strings.Repeat("x", 200)}}
	}
	if err := errors.Join(j.Save(t.Context(), journal.Change{Cluster: "c1", Put: tasks}), j.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	died, aside := 0, 0
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 24 {
		spoilt, page := bytes.Clone(data), 4096*r.IntN(len(data)/4096)
		switch i % 4 {
		case 0: // a page of zeros
			clear(spoilt[page : page+4096])
		case 1: // noise
			for k := range 64 {
				spoilt[page+k] = byte(r.IntN(256))
			}
		case 2: // cut short
			spoilt = spoilt[:page+r.IntN(4096)]
		case 3: // a page of another time
			copy(spoilt[page:page+4096], data[4096*r.IntN(len(data)/4096):])
		}
		path := filepath.Join(dir, fmt.Sprintf("%d.db", i))
		if err := os.WriteFile(path, spoilt, 0o600); err != nil {
			t.Fatal(err)
		}
		var last []byte
		opened := false
		for start := 0; start < 3 && !opened; start++ {
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), "OPEN_JOURNAL="+path)
			last, err = c.CombinedOutput()
			if opened = err == nil; !opened {
				died++
			}
		}
		if !opened {
			t.Errorf("damage %d at %d: %v\n%.1000s", i, page, err, last)
		}
		if _, err := os.Stat(path + ".damaged"); err == nil {
			aside++
		}
	}
	t.Logf("put aside %d times, after %d deaths", aside, died)
	if aside == 0 || died == 0 {
		t.Errorf("put aside %d times, after %d deaths: the damages are harmless", aside, died)
	}
}

func TestFileConforms(t *testing.T) {
	journaltest.Conform(t, func(t *testing.T) journaltest.Medium {
		t.Helper()
		return &disk{filepath.Join(t.TempDir(), "agent", "journal.db")}
	})
}

// TestDamagedFile: a machine whose journal is damaged comes back without a person, and the file is kept to look at.
func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	if err := os.WriteFile(path, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if s, err := j.Load(context.Background()); err != nil || len(s.Tasks) != 0 {
		t.Errorf("got %v, %v", s, err)
	}
	if _, err := os.Stat(path + ".damaged"); err != nil {
		t.Error(err)
	}
}

// A full disk refuses a save, whole, and costs nothing else: what was saved before is there, also for another agent, and when
// there is room again so is what is saved then.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("shoal-test", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	path, ballast := filepath.Join(dir, "journal.db"), filepath.Join(dir, "ballast")
	j, err := journal.Open(path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	record := func(n int) journal.Change {
		put := map[string]journal.Record{}
		for i := range n {
			put[fmt.Sprintf("task-%d", i)] = journal.Record{Observed: &typesv1.TaskObserved{Seq: uint64(n), Message: strings.Repeat("x", 1000)}}
		}
		return journal.Change{Put: put}
	}
	if err := j.Save(t.Context(), record(10)); err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(ballast, make([]byte, 1<<20), 0o600) // as much as there is room
	if err := j.Save(t.Context(), record(200)); err == nil {
		t.Fatal("the disk was not full")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = journal.Open(path, quiet()); err != nil {
		t.Fatalf("on a full disk: %v", err)
	}
	defer j.Close()
	if s, err := j.Load(t.Context()); err != nil || len(s.Tasks) != 10 {
		t.Errorf("%d tasks, %v", len(s.Tasks), err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := j.Save(t.Context(), record(50)); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if s, err := j.Load(t.Context()); err != nil || len(s.Tasks) != 50 {
		t.Errorf("%d tasks, %v", len(s.Tasks), err)
	}
}

// TestSecondAgentSpoilsNothing: agents that are started while one has the journal are refused, and leave it where it is, however many
// they are: it was not they who died opening it.
func TestSecondAgentSpoilsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := journal.Open(path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	// As two that died have left it, while ours was opening it.
	if err := os.WriteFile(path+".opening", []byte(".."), 0o600); err != nil {
		t.Fatal(err)
	}
	if second, err := journal.Open(path, quiet()); err == nil {
		t.Error("two agents have one journal", second.Close())
	} else if !strings.Contains(err.Error(), "another agent holds it") {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".damaged"); err == nil {
		t.Error("the journal of a living agent was put aside")
	}
	if err := j.Save(t.Context(), journal.Change{Cluster: "c1"}); err != nil {
		t.Error(err)
	}
}
