package run

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What the linker is told must reach -version: a renamed variable would be ignored in silence.
func TestLinkerSetsVersionCommitAndDate(t *testing.T) {
	const at = "github.com/shoalproject/shoal/internal/run."
	program := filepath.Join(t.TempDir(), "program")
	build := exec.Command("go", "build", "-ldflags",
		"-X "+at+"version=v7.8.9 -X "+at+"commit=0123abc -X "+at+"date=2026-01-02T03:04:05Z", "-o", program, "./testdata/version")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(program, "-version").CombinedOutput()
	if want := "shoal-probe v7.8.9 (commit 0123abc, 2026-01-02T03:04:05Z) go1."; err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%v\n%s\nwanted it to begin with\n%s", err, out, want)
	}
}
