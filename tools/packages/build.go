package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// builder makes the files that are not in the repository.
type builder struct {
	order
	dir string
}

// binDir is where the binaries of an architecture are.
func binDir(dir, arch string) string { return filepath.Join(dir, "bin", arch) }

// completion is the file with a shell's completions.
func completion(dir, shell string) string { return filepath.Join(dir, "completion", shell) }

// binaries builds all programs for all architectures, stripped.
func (b *builder) binaries(ctx context.Context) error {
	for _, arch := range b.arches {
		if err := b.build(ctx, arch, binDir(b.dir, arch), programs()...); err != nil {
			return err
		}
	}
	return nil
}

// build compiles as `make build` does, so that both share the build cache, but without symbols.
func (b *builder) build(ctx context.Context, arch, to string, names ...string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	const at = "github.com/shoalproject/shoal/internal/run."
	ld := fmt.Sprintf("-s -w -X %[1]sversion=%[2]s -X %[1]scommit=%[3]s -X %[1]sdate=%[4]s",
		at, b.version, b.commit, b.date.Format("2006-01-02T15:04:05Z"))
	args := []string{"build", "-trimpath", "-tags=grpcnotrace", "-buildvcs=false", "-ldflags", ld, "-o", to + string(filepath.Separator)}
	for _, name := range names {
		args = append(args, "./"+source(name))
	}
	c := exec.CommandContext(ctx, "go", args...)
	c.Dir = b.root
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOWORK="+filepath.Join(b.root, "go.work"))
	if text, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build for %s: %w\n%s", arch, err, text)
	}
	return nil
}

// completions asks this machine's own build of the CLI.
func (b *builder) completions(ctx context.Context) error {
	host := filepath.Join(b.dir, "host")
	if err := b.build(ctx, runtime.GOARCH, host, "shoal"); err != nil {
		return err
	}
	for _, shell := range shells() {
		c := exec.CommandContext(ctx, filepath.Join(host, "shoal"), "completion", shell)
		var faults bytes.Buffer
		c.Stderr = &faults
		text, err := c.Output()
		if err != nil {
			return fmt.Errorf("completions for %s: %w: %s", shell, err, strings.TrimSpace(faults.String()))
		}
		name := completion(b.dir, shell)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := writePublic(name, text); err != nil {
			return err
		}
	}
	return nil
}

// writePublic writes what everybody may read.
func writePublic(name string, data []byte) error {
	return os.WriteFile(name, data, 0o644) //nolint:gosec // as it says
}

// source is a program's folder in the repository.
func source(program string) string {
	if program == "shoal" {
		return "cli/cmd/shoal"
	}
	if program == "shoal-logger" {
		return "services/agent/cmd/shoal-logger"
	}
	return "services/" + strings.TrimPrefix(program, "shoal-") + "/cmd/" + program
}
