// Package packages holds `make packages` to its promise that equal sources make equal packages: wherever, whenever and by
// whomever they are built. What is in a package is tested beside its builder, in tools/packages; what it does on a machine,
// in test/systemd.
//
// It builds all of shoal twice, so it runs with the tests of deployment. It keeps no state.
package packages

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build runs the builder of the tree at root for this machine's architecture and returns the digests of what it wrote.
func Build(ctx context.Context, root, out, arch string) (sums string, err error) {
	c := exec.CommandContext(ctx, "go", "-C", filepath.Join(root, "tools", "packages"), "run", ".", "-root", root, "-out", out,
		"-version", "v0.0.1", "-commit", "0123456789abcdef0123456789abcdef01234567", "-date", "2026-01-02T03:04:05Z", "-arch", arch)
	c.Env = append(os.Environ(), "GOWORK=off")
	if text, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the packages of %s: %w\n%s", root, err, text)
	}
	data, err := os.ReadFile(filepath.Join(out, "SHA256SUMS"))
	return string(data), err
}

// Copy puts what git knows, or would take, of the tree at from into the folder to.
func Copy(ctx context.Context, from, to string) error {
	list, err := exec.CommandContext(ctx, "git", "-C", from, "ls-files", "--cached", "--others", "--exclude-standard", "-z").Output()
	if err != nil {
		return fmt.Errorf("list the tree: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, name)); err != nil && !os.IsNotExist(err) {
			return err // one that is not there was removed since git was told of it
		}
	}
	return nil
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}
