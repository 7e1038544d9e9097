package systemd

import (
	"context"
	"crypto/sha256"
	_ "embed" // the recipe
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoalproject/shoal/test/harness/images"
)

//go:embed image.sh
var recipe string //nolint:gochecknoglobals // embedded; nobody writes to it

const defaultMirror = "http://deb.debian.org/debian"

// base is a made image: a root file system, and Debian packages that are not installed in it.
type base struct{ tar, debs, key string }

// ensureImage returns the machines' image and makes it first if its recipe is new. Images are kept in a cache folder;
// making locks that folder, so that tests that start at once make it once.
func ensureImage(ctx context.Context, cache string, log *slog.Logger) (base, error) {
	mirror := DebianMirror(ctx)
	hash := sha256.Sum256([]byte(recipe + mirror))
	key := hex.EncodeToString(hash[:6])
	folder := filepath.Join(cache, key)
	image := base{tar: filepath.Join(folder, "root.tar"), debs: filepath.Join(folder, "debs"), key: key}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return base{}, err
	}
	unlock, err := images.Lock(folder)
	if err != nil {
		return base{}, err
	}
	defer unlock()
	if _, err := os.Stat(image.tar); err == nil {
		return image, nil
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		return base{}, errors.New("debootstrap is missing; on Debian: tools/make/deps deploy")
	}
	start := time.Now()
	log.Info("making the machines' image", "folder", folder, "mirror", mirror)
	script := filepath.Join(folder, "image.sh")
	if err := os.WriteFile(script, []byte(recipe), 0o755); err != nil {
		return base{}, err
	}
	// What an earlier attempt left half-made is no image.
	if err := os.RemoveAll(filepath.Join(folder, "root")); err != nil {
		return base{}, err
	}
	command := exec.CommandContext(ctx, "sh", script, folder, mirror)
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "TMPDIR=/var/tmp")
	if said, err := command.CombinedOutput(); err != nil {
		return base{}, fmt.Errorf("make the machines' image: %w\n%s", err, tail(string(said), 15))
	}
	log.Info("made the machines' image", "took", time.Since(start).Round(time.Second))
	return image, nil
}

// DebianMirror is where this machine's apt has Debian 12 from, or Debian's own.
func DebianMirror(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return defaultMirror
	}
	for line := range strings.Lines(string(out)) {
		if uri, rest, ok := strings.Cut(strings.TrimSpace(line), " "); ok && rest == "bookworm main" && strings.HasPrefix(uri, "http") {
			return strings.TrimSuffix(uri, "/")
		}
	}
	return defaultMirror
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
