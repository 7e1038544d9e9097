package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// treeAt takes a folder for a container's root.
func treeAt(t *testing.T, root string) *Tree {
	t.Helper()
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	tree := &Tree{root: fd}
	t.Cleanup(func() { _ = tree.Close() })
	return tree
}

func put(t *testing.T, tree *Tree, entries ...*tar.Header) error {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := tree.Unpack(t.Context(), &logsv1.CopyPut{Dir: "/"}, &b)
	return err
}

// A link in the container that stands where the archive has a directory is followed inside the container alone.
func TestDirectoryOverALink(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	for link, to := range map[string]string{"out": outside, "in": "/real"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	tree := treeAt(t, root)
	if err := put(t, tree, &tar.Header{Typeflag: tar.TypeDir, Name: "in", Mode: 0o755}); err != nil {
		t.Errorf("a link to a directory inside: %v", err)
	}
	if err := put(t, tree, &tar.Header{Typeflag: tar.TypeDir, Name: "out", Mode: 0o755}); err == nil {
		t.Error("a link to a directory of the machine was taken for one of the container")
	}
}

// What is packed is what was looked at: a device that takes the place of a file meanwhile is never opened.
func TestWhatIsReadIsWhatWasLookedAt(t *testing.T) {
	root := t.TempDir()
	name := filepath.Join(root, "file")
	if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree := treeAt(t, root)
	var got bytes.Buffer
	swap := func(*logsv1.CopyStat) error { // between the look and the reading
		return errors.Join(os.Rename(name, name+".old"), unix.Mkfifo(name, 0o600))
	}
	if err := tree.Pack(t.Context(), &logsv1.CopyGet{Path: "/file"}, swap, &got); err != nil {
		t.Fatal(err)
	}
	in := tar.NewReader(&got)
	if _, err := in.Next(); err != nil {
		t.Fatal(err)
	}
	if raw, err := io.ReadAll(in); err != nil || string(raw) != "content" {
		t.Errorf("%q, %v", raw, err)
	}
}

// A number that another process has by now opens nothing of it.
func TestAnothersProcessIsNotEntered(t *testing.T) {
	raw, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, own, _ := strings.Cut(strings.TrimSpace(string(raw)), ":")
	own, _, _ = strings.Cut(own, "\n")
	tree, err := Of(os.Getpid(), own)
	if err != nil {
		t.Fatalf("the process itself: %v", err)
	}
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Of(os.Getpid(), "/shoal/task.0"); errs.KindOf(err) != errs.Precondition {
		t.Errorf("a process of another group: %v", err)
	}
}

// A copied file has the time that it had, to the nanosecond.
func TestTimesAreKept(t *testing.T) {
	root := t.TempDir()
	at := time.Unix(1_000_000_000, 123_456_789)
	if err := put(t, treeAt(t, root), &tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o600, ModTime: at, Format: tar.FormatPAX}); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(root, "f"))
	if err != nil || !st.ModTime().Equal(at) {
		t.Errorf("%v, %v", st.ModTime(), err)
	}
}
