package userns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

const first = 1 << 30

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes user namespaces")
	}
	if err := Able(t.TempDir()); err != nil {
		t.Skip(err)
	}
}

// The namespaces have the ids that were asked for and belong together; nothing of them is left.
func TestHold(t *testing.T) {
	needsRoot(t)
	var process string
	err := Hold(container.IDs{First: first}, func(folder string) error {
		process = filepath.Dir(folder)
		for _, of := range []string{"uid_map", "gid_map"} {
			text, err := os.ReadFile(filepath.Join(process, of))
			if err != nil || Range(string(text)) != (container.IDs{First: first}) || !strings.HasSuffix(strings.TrimSpace(string(text)), " 65536") {
				t.Errorf("%s: %s, %v", of, text, err)
			}
		}
		net, err := unix.Open(filepath.Join(folder, "net"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(net)
		owner, err := unix.IoctlRetInt(net, unix.NS_GET_USERNS)
		if err != nil {
			return err
		}
		defer unix.Close(owner)
		var users, its unix.Stat_t
		if err := unix.Stat(filepath.Join(folder, "user"), &users); err != nil {
			return err
		}
		if err := unix.Fstat(owner, &its); err != nil || its.Ino != users.Ino {
			t.Errorf("the network namespace belongs to %d, not to %d: %v", its.Ino, users.Ino, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(process); err == nil {
		t.Errorf("%s is left", process)
	}
}

// A file keeps its owner on disk and has the same one inside, whoever looks at it by the mount.
func TestMount(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	file, at := filepath.Join(dir, "data", "file"), filepath.Join(dir, "at")
	for _, err := range []error{
		os.Mkdir(filepath.Dir(file), 0o755), os.Mkdir(at, 0o755), os.WriteFile(file, nil, 0o600), os.Chown(file, 5, 6),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	err := Hold(container.IDs{First: first}, func(folder string) error {
		users, err := os.Open(filepath.Join(folder, "user"))
		if err != nil {
			return err
		}
		defer users.Close()
		if err := Mount(unix.AT_FDCWD, "/proc", users, at, Tree{}); !errs.Is(err, errs.Invalid) {
			t.Errorf("a mount of /proc: %v", err)
		}
		return Mount(unix.AT_FDCWD, filepath.Dir(file), users, at, Tree{Recursive: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	var on, by unix.Stat_t
	err = unix.Stat(file, &on)
	if err == nil {
		err = unix.Stat(filepath.Join(at, "file"), &by)
	}
	if err != nil || on.Uid != 5 || on.Gid != 6 || by.Uid != first+5 || by.Gid != first+6 {
		t.Errorf("on disk %d:%d, by the mount %d:%d, %v", on.Uid, on.Gid, by.Uid, by.Gid, err)
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Error(err)
	}
}
