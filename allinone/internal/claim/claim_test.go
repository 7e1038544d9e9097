package claim_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/allinone/internal/claim"
)

func take(t *testing.T, dir, data string) *claim.Claim {
	t.Helper()
	c, err := claim.Take(dir, data, true)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// One at a time, and the second is told who has it.
func TestOneAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	first := take(t, dir, "/a")
	must(t, first.Begin())
	for _, data := range []string{"/a", "/b"} {
		if _, err := claim.Take(dir, data, true); !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "with the cluster in /a") {
			t.Errorf("a second one with %s: %v", data, err)
		}
	}
	must(t, first.Release())
}

// What a killed run has left is taken over by the same cluster alone, with its word about the context.
func TestRemainsBelongToTheirCluster(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	killed := take(t, dir, "/a")
	if killed.Found() {
		t.Error("a fresh machine has remains")
	}
	must(t, killed.Begin())
	must(t, killed.Use("work"))
	must(t, killed.Release()) // the kernel does so
	if _, err := claim.Take(dir, "/b", true); !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "--data /a") {
		t.Errorf("another cluster: %v", err)
	}
	again := take(t, dir, "/a")
	if !again.Found() || again.Before() != "work" {
		t.Errorf("found %t, context %q; want the remains and work", again.Found(), again.Before())
	}
	must(t, again.Clean())
	must(t, again.Release())
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the clean end: %v", err)
	}
}

// A run that is refused leaves no trace.
func TestRefusedRunLeavesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	must(t, take(t, dir, "/a").Release())
	c, err := claim.Take(dir, "/a", false) // not root
	must(t, err)
	must(t, c.Release())
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}
