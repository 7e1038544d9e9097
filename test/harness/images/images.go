// Package images makes the lab's test images out of our own Go code and serves them: micro:1.0.0, micro:1.1.0 and
// micro:crash, each an index for linux/amd64 and linux/arm64. No container engine is needed, and the same sources give
// the same digests.
//
// Built images are kept in a folder beside the binaries until the sources change. Building locks that folder, so that
// labs that start at once build once.
package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// variant is one tag of the image.
type variant struct {
	tag     string
	version string   // of the binary
	args    []string // after the program's name
}

func variants() []variant {
	return []variant{
		{tag: "1.0.0", version: "1.0.0"},
		{tag: "1.1.0", version: "1.1.0"},
		{tag: "crash", version: "1.0.0", args: []string{"-crash"}},
	}
}

func architectures() []string { return []string{"amd64", "arm64"} }

// Repository is the images' name in the registry.
const Repository = "micro"

// Ensure returns a folder (an OCI image layout) with the images, and builds them first if they are not there or the
// sources have changed. The sources are found in the project that the folder lies in; without them what is there is used.
func Ensure(ctx context.Context, folder string, log *slog.Logger) (string, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	unlock, err := Lock(folder)
	if err != nil {
		return "", err
	}
	defer unlock()
	layout, stamp := filepath.Join(folder, "layout"), filepath.Join(folder, "sources")
	source, err := findSource(folder)
	if err != nil {
		if _, statErr := os.Stat(stamp); statErr == nil {
			return layout, nil
		}
		return "", err
	}
	want, err := digest(source)
	if err != nil {
		return "", err
	}
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		return layout, nil
	}
	start := time.Now()
	log.Info("building the test images", "folder", folder)
	fresh, err := os.MkdirTemp(folder, "build-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(fresh) }()
	if err := build(ctx, source, fresh); err != nil {
		return "", err
	}
	// The stamp goes first and comes last: images without it are built again.
	for _, old := range []string{stamp, layout} {
		if err := os.RemoveAll(old); err != nil {
			return "", err
		}
	}
	if err := os.Rename(filepath.Join(fresh, "layout"), layout); err != nil {
		return "", err
	}
	log.Info("built the test images", "took", time.Since(start).Round(time.Millisecond))
	return layout, os.WriteFile(stamp, []byte(want), 0o644)
}

func build(ctx context.Context, source, folder string) error {
	binaries := map[string]string{} // by version and architecture
	for _, v := range variants() {
		for _, arch := range architectures() {
			key := v.version + "-" + arch
			if binaries[key] != "" {
				continue
			}
			path := filepath.Join(folder, "micro-"+key)
			if err := compile(ctx, source, path, v.version, arch); err != nil {
				return err
			}
			binaries[key] = path
		}
	}
	return assemble(filepath.Join(folder, "layout"), binaries)
}

func compile(ctx context.Context, source, path, version, arch string) error {
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", path, ".")
	command.Dir = source
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build micro %s for %s: %w\n%s", version, arch, err, said)
	}
	return nil
}

// findSource finds micro's sources in the project around the folder.
func findSource(folder string) (string, error) {
	for dir := folder; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		source := filepath.Join(dir, "test", "harness", "cmd", "micro")
		if _, err := os.Stat(filepath.Join(source, "main.go")); err == nil {
			return source, nil
		}
	}
	return "", fmt.Errorf("the test images are not built and the sources of micro are not in a project around %s; "+
		"run `shoal-lab images` in the project first", folder)
}

// digest tells whether sources, toolchain or recipe have changed.
func digest(source string) (string, error) {
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", err
	}
	slices.Sort(files)
	hash := sha256.New()
	fmt.Fprintln(hash, "recipe 1", runtime.Version(), architectures(), variants())
	for _, path := range files {
		file, err := os.Open(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(hash, filepath.Base(path))
		_, err = io.Copy(hash, file)
		if err := errors.Join(err, file.Close()); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// Lock waits for a folder that processes share, and holds it until unlock or the end of this one.
func Lock(folder string) (unlock func(), err error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", folder, err), dir.Close())
	}
	return func() { dir.Close() }, nil
}
