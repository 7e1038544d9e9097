package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The demo ends with a running cluster and a list of things to try, and each of them works when it is pasted. The last
// one removes everything.
func TestDemo(t *testing.T) {
	parent, err := os.MkdirTemp("/var/tmp", "shoal-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "demo")
	shell := func(script string) (string, error) {
		command := exec.CommandContext(context.WithoutCancel(t.Context()), "bash", "-euo", "pipefail", "-c", script)
		command.Dir = root(t)
		command.Env = append(os.Environ(), "SHOAL_LAB_DIR="+dir, "SUDO_USER=")
		out, err := command.CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() {
		if out, err := shell("deploy/demo/down"); err != nil {
			t.Errorf("demo down: %v\n%s", err, out)
		}
		_ = os.RemoveAll(parent) // what is left of a lab was an error above
	})
	began := time.Now()
	told, err := shell("deploy/demo/up")
	if err != nil {
		t.Fatalf("demo up: %v\n%s", err, told)
	}
	t.Logf("demo up after %s", time.Since(began).Round(10*time.Millisecond))
	_, list, ok := strings.Cut(told, "Paste this first:\n")
	if !ok || strings.Count(list, "\n# ") < 5 {
		t.Fatalf("the demo does not say what to try:\n%s", told)
	}
	first, list, _ := strings.Cut(list, "\n")
	for part := range strings.SplitSeq(list, "\n# ") {
		title, commands, _ := strings.Cut(part, "\n")
		if strings.TrimSpace(commands) == "" {
			continue
		}
		began := time.Now()
		out, err := shell(first + "\n" + commands)
		if err != nil {
			t.Errorf("%s: %v\n%s\n%s", title, err, commands, out)
		}
		t.Logf("%s: %s\n%s", title, time.Since(began).Round(10*time.Millisecond), out)
		for says, wanted := range map[string]string{
			"Kill a container":     "exit code 137",
			"Switch a machine off": "Down",
			"Roll":                 "version=1.1.0",
			"The same API":         `"micro"`,
		} {
			if strings.HasPrefix(title, says) && !strings.Contains(out, wanted) {
				t.Errorf("%s: does not show %s", title, wanted)
			}
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
}
