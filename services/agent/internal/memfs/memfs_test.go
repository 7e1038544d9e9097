package memfs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/memfs"
	"github.com/shoalproject/shoal/services/agent/internal/memfs/memfstest"
)

func root(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	return filepath.Join(t.TempDir(), "secrets")
}

// TestConform: the kernel's keeps the contract, and nothing is left of it.
func TestConform(t *testing.T) {
	dir := root(t)
	memfstest.Conform(t, memfs.New(dir), func(from string) (string, bool) {
		data, err := os.ReadFile(from)
		return string(data), err == nil
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("a mount is left (%v)", err)
	}
}

// TestFilesAreInMemoryWithTheirOwner: a file is on a tmpfs, nobody else on the machine may look into its folder, and owner and
// mode are as asked for.
func TestFilesAreInMemoryWithTheirOwner(t *testing.T) {
	dir := root(t)
	v := memfs.New(dir)
	defer func() {
		if err := v.Sweep(t.Context(), func(string) bool { return false }); err != nil {
			t.Error(err)
		}
	}()
	f := container.File{Path: "/run/secrets/a", Data: []byte("data"), UID: 1234, GID: 4321, Mode: 0o440}
	binds, err := v.Make(t.Context(), "one.0", []container.File{f})
	if err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(binds[0].From, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Errorf("the file is on a file system of type %x (%v)", fs.Type, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(binds[0].From, &st); err != nil || st.Uid != 1234 || st.Gid != 4321 || st.Mode&0o7777 != 0o440 {
		t.Errorf("owner %d:%d mode %o (%v)", st.Uid, st.Gid, st.Mode, err)
	}
	if info, err := os.Stat(filepath.Dir(binds[0].From)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
	if text := fmt.Sprintf("%v %+v %#v", f, []container.File{f}, f); strings.Contains(text, "data") || strings.Contains(text, "100 97 116 97") {
		t.Errorf("a file that is printed shows its data: %s", text)
	}
}
