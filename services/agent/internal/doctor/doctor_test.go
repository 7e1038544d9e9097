package doctor

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalproject/shoal/internal/finding"
)

func TestASnapshotterThatDoesNotWorkIsAFault(t *testing.T) {
	plugins := []*introspection.Plugin{{ID: "native"}, {ID: "overlayfs", InitErr: status.New(codes.Unknown, "modprobe overlay failed").Proto()}}
	for wanted, says := range map[string]string{"native": "", "overlayfs": "modprobe overlay failed", "zfs": "but native"} {
		got := snapshotter(plugins, wanted)
		if (got.Grade == finding.OK) != (says == "") || !strings.Contains(got.What, says) {
			t.Errorf("%s: %+v", wanted, got)
		}
	}
}

func TestVersionsAreComparedAsNumbers(t *testing.T) {
	for have, want := range map[string]bool{"1.5.13": true, "1.6.20~ds1": false, "1.10.0": false, "2.0.1": false, "0.9": true, "of mine": false} {
		if older(have, "1.6") != want {
			t.Errorf("%s: %v", have, !want)
		}
	}
}

func TestMissingControllersAreTold(t *testing.T) {
	v1, v2, none := t.TempDir(), t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		filepath.Join(v1, "cpu", "tasks"): "", filepath.Join(v1, "memory", "tasks"): "", filepath.Join(v2, "cgroup.controllers"): "cpuset cpu io memory pids\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for root, want := range map[string]struct {
		grade finding.Grade
		says  string
	}{v1: {finding.Warning, "version 1, without pids"}, v2: {finding.OK, "version 2"}, none: {finding.Fault, "no controller"}} {
		if got := cgroups(root); got.Grade != want.grade || !strings.Contains(got.What, want.says) {
			t.Errorf("%+v, wanted %s with %q", got, want.grade, want.says)
		}
	}
}

// A socket that nobody serves, and one that is not there, are told apart.
func TestContainerdThatDoesNotAnswer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "c.sock")
	if got := (Machine{Socket: socket}).containerd(t.Context()); got[0].Grade != finding.Fault || !strings.Contains(got[0].Fix, "install") {
		t.Errorf("%+v", got)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := (Machine{Socket: socket}).containerd(t.Context()); got[0].Grade != finding.Fault || !strings.Contains(got[0].Fix, "journalctl") {
		t.Errorf("%+v", got)
	}
}

// TestRoom: a disk that is as good as full is a fault, one of images that is full enough for some to go a warning, and a folder that is
// not made yet is looked at where it will be.
func TestRoom(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("shoal-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	m := Machine{ImagesHigh: 80}
	for _, c := range []struct {
		kib          int
		data, images finding.Grade
	}{{500, finding.OK, finding.OK}, {900, finding.OK, finding.Warning}, {1000, finding.Fault, finding.Fault}} {
		if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, c.kib<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := m.room("data", filepath.Join(dir, "not", "yet")); got.Grade != c.data {
			t.Errorf("%d KiB: %+v", c.kib, got)
		}
		if got := m.room("images", dir); got.Grade != c.images {
			t.Errorf("%d KiB: %+v", c.kib, got)
		}
	}
}
