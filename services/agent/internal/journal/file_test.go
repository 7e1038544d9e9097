package journal_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoalproject/shoal/services/agent/internal/journal"
	"github.com/shoalproject/shoal/services/agent/internal/journal/journaltest"
)

// disk is a journal's folder. Its crash copies the file away from under the open journal, as a power cut would.
type disk struct{ path string }

func (d *disk) Open(t *testing.T) journal.Journal {
	t.Helper()
	j, err := journal.Open(d.path)
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
	j, err := journal.Open(path)
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
