package logger

import (
	"os"
	"path/filepath"
	"testing"
)

// The small program is taken where it lies beside the agent's, and copied to where containerd sees it; nothing is ever put over the agent's
// own file.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	agent, beside, copied := filepath.Join(dir, "shoal-agent"), filepath.Join(dir, "shoal-logger"), filepath.Join(dir, "data", "logger")
	put := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	look := func(at, want, text string) {
		t.Helper()
		got, err := program(agent, at)
		if err != nil || got != want {
			t.Errorf("at %q: %q, %v, want %q", at, got, err, want)
		}
		if have, err := os.ReadFile(got); err != nil || string(have) != text {
			t.Errorf("at %q: it is %q, %v", at, have, err)
		}
	}
	put(agent, "agent", 0o700)
	look("", agent, "agent")
	look(copied, copied, "agent")
	put(beside, "not to be run", 0o600)
	look("", agent, "agent")
	if err := os.Remove(beside); err != nil {
		t.Fatal(err)
	}
	put(beside, "small", 0o700)
	look("", beside, "small")
	look(beside, beside, "small")
	look(copied, copied, "small")
	look(agent, agent, "agent")
}
