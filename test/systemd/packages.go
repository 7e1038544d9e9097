package systemd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Package builds the project's Debian packages for this machine's architecture, with a version of the caller's choice,
// into a folder, as `make packages` does.
func Package(ctx context.Context, root, version, out string) error {
	command := exec.CommandContext(ctx, "go", "-C", "tools/packages", "run", ".", "-root", root, "-out", out,
		"-version", version, "-commit", "0000000", "-date", "2026-01-01T00:00:00Z", "-arch", runtime.GOARCH, "-format", "deb")
	command.Dir = root
	command.Env = append(os.Environ(), "GOWORK=off")
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build packages %s: %w\n%s", version, err, tail(string(said), 20))
	}
	return nil
}

// projectRoot is the folder of go.work above the working folder.
func projectRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no go.work above the working folder")
}
