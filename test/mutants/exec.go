package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// copySource copies what git would track: committed, changed and new files, but nothing that is ignored.
func copySource(ctx context.Context, root, to string) error {
	cmd := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if err := copyFile(filepath.Join(root, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

// copyFile leaves out what git knows but the checkout lacks, and what is no regular file.
func copyFile(from, to string) error {
	info, err := os.Lstat(from)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, info.Mode().Perm())
}

// git runs in the copy, which is no repository; what lies above it must not be taken for one.
func git(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// outcome is what a test binary said. Tests are named.
type outcome struct {
	passed, failed []string
	output         string // the end of it, to show
}

// faulty is a package that does not build, with what the compiler said.
type faulty struct{ output string }

func (f faulty) Error() string { return f.output }

// build makes the test binary of a package of the copy in dir; a faulty error is the package's own.
func build(ctx context.Context, dir string, p pack, binary string) error {
	// vet has had its turn on the healthy source. Nobody debugs the binary.
	cmd := exec.CommandContext(ctx, "go", "-C", filepath.Join(dir, p.module), "test", "-c", "-vet=off", "-ldflags=-w", "-o", binary, p.path)
	// The flags of `make build`: paths are trimmed, so that the build cache serves copies in any folder.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="+os.Getenv("GOFLAGS")+" -trimpath")
	output, err := cmd.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); exited && ctx.Err() == nil {
		return faulty{tail(string(output))}
	}
	return errors.Join(err, ctx.Err())
}

// runTest runs one target by its package's binary, in the package's folder as go test does, until its first red test. A red
// test is no error: the error is about the run itself.
func runTest(ctx context.Context, dir, binary string, t target) (outcome, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", binary,
		"-test.v=test2json", "-test.failfast", "-test.paniconexit0", "-test.timeout=90s", "-test.run", t.run)
	cmd.Dir = filepath.Join(dir, t.module, t.path)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return outcome{}, ctx.Err()
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return outcome{}, err
	}
	result, decodeErr := read(&stdout)
	if decodeErr != nil {
		return outcome{}, fmt.Errorf("read the test's events: %w: %s", decodeErr, stderr.String())
	}
	if err != nil && len(result.failed) == 0 {
		return outcome{}, fmt.Errorf("it died before its first test: %s", tail(result.output+stderr.String()))
	}
	return result, nil
}

func read(events io.Reader) (outcome, error) {
	var result outcome
	var output strings.Builder
	for dec := json.NewDecoder(events); ; {
		var e struct{ Action, Test, Output string }
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			result.output = tail(output.String())
			return result, nil
		} else if err != nil {
			return outcome{}, err
		}
		output.WriteString(e.Output)
		switch {
		case strings.HasPrefix(e.Output, "panic: test timed out after"): // a guarantee whose loss is a test without end
			result.failed = append(result.failed, e.Test)
		case e.Test != "" && e.Action == "pass":
			result.passed = append(result.passed, e.Test)
		case e.Test != "" && e.Action == "fail":
			result.failed = append(result.failed, e.Test)
		}
	}
}

// tail keeps the last lines, where the reason is.
func tail(text string) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-30):], "")
}
