package executor

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/network"
)

// firstID is of the range that containers of these tests have.
const firstID = 1 << 30

// private is a container with a user namespace of its own, without a network.
func (r *rig) private(t *testing.T, id string, args ...string) container.Spec {
	t.Helper()
	s := r.spec(id, args...)
	s.IDs = container.IDs{First: firstID}
	n := network.New(filepath.Join(filepath.Dir(r.config), "net"))
	box, err := n.Make(t.Context(), container.Wiring{ID: id, Hostname: s.Hostname, IDs: s.IDs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	})
	s.Sandbox = box
	return s
}

// TestUserNamespace: the root of a container is nobody on the machine, and the container is as it is without.
func TestUserNamespace(t *testing.T) {
	r := newRig(t)
	dir := filepath.Join(filepath.Dir(r.config), "outside")
	outside(t, dir)
	if err := r.UserNamespaces(); err != nil {
		t.Skip(err)
	}
	answers := [][2]string{
		{"file:/proc/self/uid_map", `^0 +1073741824 +65536$`},
		{"file:/proc/self/gid_map", `^0 +1073741824 +65536$`},
		{"ids:", "^0 0 "},
		{"mode:/", "^755 0:0"},
		{"mode:/probe", "^755 0:0"},
		{"write:/", "^ok$"},
		{"mode:/written", "^600 0:0"},
		{"mode:/etc/hosts", "^644 0:0"},
		{"open:/etc/hosts", "^ok$"},
		{"write:/data", "^ok$"},
		{"chown:/data/written|1234", "^ok$"},
		{"chown:/data/written|70000", "invalid argument"},
		{"mode:/data/written", "^600 1234:1234"},
		{"file:/seeded/from-image", "^seed$"},
		{"write:/seeded", "^ok$"},
		{"write:/declared", "^ok$"},
		{"write:/dev/shm", "^ok$"},
		{"write:/memory", "^ok$"},
		{"mode:/memory", "^700 0:0"},
		{"file:/bound/outside", "^of the node$"},
		{"write:/bound", "^ok$"},
		{"write:/bound/below", "^ok$"},
		{"write:/bound-ro", "read-only file system"},
		{"list:/sys/class/net", "^lo$"},
		{"file:/proc/sys/net/core/somaxconn", "^77$"},
		{"file:/proc/sys/net/ipv4/ip_unprivileged_port_start", "^0$"},
		{"listen:127.0.0.1:80", "^ok$"},
		{"ping:", "^ok$"},
		{"open:/dev/null", "^ok$"},
		{"open:/dev/stderr", "^ok$"},
		{"open:/proc/sys/kernel/hostname", "read-only file system|permission denied"},
		{"open:/dev/stdout", "^ok$"},
		{"line:/proc/self/status|CapEff", "00000000a80425fb$"},
		{"line:/proc/self/status|Seccomp:", "2$"},
		{"file:/proc/self/oom_score_adj", "^500$"},
		{"list:/proc", "^1 "},
	}
	s := r.private(t, "own.0", "tell")
	for _, a := range answers {
		s.Container.Args = append(s.Container.Args, a[0])
	}
	s.Container.OomScoreAdj = 500
	s.Container.Sysctls = map[string]string{"net.core.somaxconn": "77"}
	s.Container.Mounts = []*typesv1.Mount{
		{Source: "data", Target: "/data"}, {Source: "seeds", Target: "/seeded"},
		{Type: typesv1.MountType_MOUNT_TYPE_TMPFS, Target: "/memory", Tmpfs: &typesv1.TmpfsOptions{Mode: 0o700}},
		{Type: typesv1.MountType_MOUNT_TYPE_BIND, Source: dir + "/bound", Target: "/bound"},
		{Type: typesv1.MountType_MOUNT_TYPE_BIND, Source: dir + "/bound", Target: "/bound-ro", ReadOnly: true},
	}
	pid := r.run(t, s)
	until(t, "the container has told all", func() bool { return strings.Contains(r.log(t, s.ID), "that is all") })
	told := r.log(t, s.ID)
	for _, a := range answers {
		if got := answerTo(told, a[0]); !regexp.MustCompile(a[1]).MatchString(got) {
			t.Errorf("%s: %q, want %s", a[0], got, a[1])
		}
	}
	// Outside, what it wrote into a volume has the owners that it has inside; its process has not.
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(r.cfg.Volumes, "named", "data", "data", "written"), &st); err != nil || st.Uid != 1234 {
		t.Errorf("in the volume: %d, %v", st.Uid, err)
	}
	if err := unix.Stat(fmt.Sprintf("/proc/%d", pid), &st); err == nil && st.Uid != firstID {
		t.Errorf("its process belongs to %d", st.Uid)
	}
	if found, err := r.List(t.Context()); err != nil || len(found) != 1 || found[0].IDs != s.IDs {
		t.Errorf("found: %+v, %v", found, err)
	}
	if _, err := r.Remove(t.Context(), s.ID, container.Stop{}); err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), r.cfg.Pins) {
		t.Errorf("mounts are left: %v", err)
	}
}
