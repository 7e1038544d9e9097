package system_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/cli/internal/system"
)

func TestAFolderIsMadeOnceWithItsMode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	var m system.Machine
	if made, err := m.Folder(dir, 0o755); err != nil || !made {
		t.Fatal(made, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Error(info, err)
	}
	if made, err := m.Folder(dir, 0o700); err != nil || made {
		t.Error("it is there", made, err)
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o755 {
		t.Error("a person's mode was changed")
	}
}

// What a link leads to is somebody else's.
func TestGiveFollowsNoLink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files away")
	}
	dir := t.TempDir()
	outside, inside := filepath.Join(dir, "outside"), filepath.Join(dir, "given")
	for _, d := range []string{outside, filepath.Join(inside, "deep")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(inside, "link")); err != nil {
		t.Fatal(err)
	}
	var m system.Machine
	if err := m.Give(inside, 71, 72); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{inside: 71, filepath.Join(inside, "deep", "file"): 71, filepath.Join(inside, "link"): 71, outside: 0, filepath.Join(outside, "file"): 0} {
		if uid, _, err := m.Owner(name); err != nil || uid != want {
			t.Errorf("%s is of %d, wanted %d, %v", name, uid, want, err)
		}
	}
	if err := m.Give(filepath.Join(inside, "deep", "file"), 0, 73); err != nil {
		t.Error(err)
	}
}

func TestSpaceOfAFolderThatIsNotThereYet(t *testing.T) {
	var m system.Machine
	space, err := m.Space(filepath.Join(t.TempDir(), "not", "yet"))
	if err != nil || space.Bytes == 0 || space.Files == 0 {
		t.Errorf("%+v, %v", space, err)
	}
}

func TestWhatAProgramSaysIsInItsError(t *testing.T) {
	var m system.Machine
	out, err := m.Run(t.Context(), "sh", "-c", "echo found; echo why >&2; exit 3")
	if out != "found\n" || err == nil || !strings.Contains(err.Error(), "why (exit code 3)") {
		t.Errorf("%q, %v", out, err)
	}
	if _, _, ok := m.Account("root"); !ok {
		t.Error("there is no root")
	}
	if _, _, ok := m.Account("shoal-nobody-of-that-name"); ok {
		t.Error("somebody was found")
	}
}

// What is mounted below a folder is kept elsewhere: people's files that a container had, or an image's that others use.
func TestRemoveAllStopsAtMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	dir, source := filepath.Join(t.TempDir(), "run"), t.TempDir()
	at, kept := filepath.Join(dir, "volumes", "with blanks", "0"), filepath.Join(source, "kept")
	if err := errors.Join(os.MkdirAll(at, 0o700), os.WriteFile(kept, nil, 0o600), unix.Mount(source, at, "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) }) // it was
	var m system.Machine
	if err := m.RemoveAll(dir); err == nil || !strings.Contains(err.Error(), at+" is mounted") {
		t.Errorf("removed through a mount: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what is not there is no error
		if err := m.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
}
