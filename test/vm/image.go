package vm

import (
	"context"
	"crypto/sha256"
	_ "embed" // the recipe
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoalproject/shoal/test/harness/images"
	"github.com/shoalproject/shoal/test/systemd"
)

//go:embed image.sh
var recipe string //nolint:gochecknoglobals // embedded; nobody writes to it

// image is a made disk, and the kernel that boots it.
type image struct{ root, kernel, initrd string }

// ensureImage returns the machines' image and makes it first if its recipe is new. Making locks the cache's folder, so that
// tests that start at once make it once.
func ensureImage(ctx context.Context, cache string, log *slog.Logger) (image, error) {
	mirror := systemd.DebianMirror(ctx)
	hash := sha256.Sum256([]byte(recipe + mirror))
	folder := filepath.Join(cache, hex.EncodeToString(hash[:6]))
	made := image{root: filepath.Join(folder, "root.ext4"), kernel: filepath.Join(folder, "kernel"), initrd: filepath.Join(folder, "initrd")}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return image{}, err
	}
	unlock, err := images.Lock(folder)
	if err != nil {
		return image{}, err
	}
	defer unlock()
	if _, err := os.Stat(made.root); err == nil {
		return made, nil
	}
	start := time.Now()
	log.Info("making the machine's disk", "folder", folder, "mirror", mirror)
	script := filepath.Join(folder, "image.sh")
	if err := os.WriteFile(script, []byte(recipe), 0o755); err != nil {
		return image{}, err
	}
	// What an earlier attempt left half-made is no image.
	if err := os.RemoveAll(filepath.Join(folder, "root")); err != nil {
		return image{}, err
	}
	command := exec.CommandContext(ctx, "sh", script, folder, mirror)
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "TMPDIR=/var/tmp")
	if said, err := command.CombinedOutput(); err != nil {
		return image{}, fmt.Errorf("make the machine's disk: %w\n%s", err, tail(string(said), 15))
	}
	log.Info("made the machine's disk", "took", time.Since(start).Round(time.Second))
	return made, nil
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
