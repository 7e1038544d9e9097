package executor

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
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
	folder := filepath.Join(filepath.Dir(r.config), "net-"+id)
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC // as /run has
	if err := errors.Join(os.Mkdir(folder, 0o755), unix.Mount("tmpfs", folder, "tmpfs", flags, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(folder, 0); err != nil {
			t.Error(err)
		}
	})
	n := network.New(folder)
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
		{"file:/proc/sys/net/ipv4/tcp_keepalive_time", "^77$"},
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
	s.Container.Sysctls = map[string]string{"net.ipv4.tcp_keepalive_time": "77"} // of net.core an older kernel has nothing here
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

// TestInsideUserNamespace: commands, copies and looks find the container as those of one without find theirs.
func TestInsideUserNamespace(t *testing.T) {
	r := newRig(t)
	if err := r.UserNamespaces(); err != nil {
		t.Skip(err)
	}
	s := r.private(t, "in.0", "wait")
	s.Container.User = "app"
	s.Container.Mounts = []*typesv1.Mount{{Source: "data", Target: "/data"}}
	secret := filepath.Join(filepath.Dir(r.config), "secret")
	if err := errors.Join(os.WriteFile(secret, []byte("word"), 0o400), os.Chown(secret, firstID+1234, firstID+99)); err != nil {
		t.Fatal(err)
	}
	s.Files = []container.Bind{{From: secret, To: "/run/secrets/s"}}
	r.run(t, s)
	ask := func(user string, questions ...string) string {
		_, out, _ := r.exec(t, container.Command{Args: append([]string{"/probe", "ask"}, questions...), User: user})
		return out
	}
	out := ask("", "ids:", "file:/run/secrets/s", "mode:/run/secrets/s", "open:/dev/stdout", "open:/dev/stderr", "listen:127.0.0.1:80", "write:/data")
	for question, want := range map[string]string{
		"ids:": "1234 99 [77 99]", "file:/run/secrets/s": "word", "mode:/run/secrets/s": "400 1234:99", "open:/dev/stdout": "ok", "open:/dev/stderr": "ok",
		"listen:127.0.0.1:80": "ok", "write:/data": "permission denied",
	} {
		if got := answerTo(out, question); got != want {
			t.Errorf("%s: %q, want %q", question, got, want)
		}
	}
	for _, dir := range []string{"/dev/shm", "/data", "/seeded"} {
		_, err := r.Put(t.Context(), "in.0", &logsv1.CopyPut{Dir: dir, Owners: true}, archive(t,
			&tar.Header{Typeflag: tar.TypeReg, Name: "d/e/plain", Mode: 0o640, Uid: 7, Gid: 8},
			&tar.Header{Typeflag: tar.TypeSymlink, Name: "d/link", Linkname: "e", Uid: 7, Gid: 8},
			&tar.Header{Typeflag: tar.TypeDir, Name: "roots", Mode: 0o750},
		))
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		out := ask("0", "mode:"+dir+"/d", "mode:"+dir+"/d/e/plain", "mode:"+dir+"/d/link", "mode:"+dir+"/roots", "write:"+dir+"/roots")
		for question, want := range map[string]string{
			"mode:" + dir + "/d": "755 0:0", "mode:" + dir + "/d/e/plain": "640 7:8", "mode:" + dir + "/d/link": "755 0:0", "mode:" + dir + "/roots": "750 0:0",
			"write:" + dir + "/roots": "ok",
		} {
			if got := answerTo(out, question); got != want {
				t.Errorf("%s: %q, want %q", question, got, want)
			}
		}
		var got bytes.Buffer
		if err := r.Get(t.Context(), "in.0", &logsv1.CopyGet{Path: dir + "/d/e/plain"}, func(*logsv1.CopyStat) error { return nil }, &got); err != nil {
			t.Fatal(err)
		}
		if h, err := tar.NewReader(&got).Next(); err != nil || h.Uid != 7 || h.Gid != 8 {
			t.Errorf("%s: came out as %+v, %v", dir, h, err)
		}
	}
	_, err := r.Put(t.Context(), "in.0", &logsv1.CopyPut{Dir: "/data", Owners: true}, archive(t, &tar.Header{Typeflag: tar.TypeReg, Name: "far", Mode: 0o640, Uid: 70000}))
	if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "id 70000 is not among the 65536 of its user namespace") {
		t.Errorf("an owner beyond the namespace: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(r.cfg.Volumes, "named", "data", "data", "d", "e", "plain"), &st); err != nil || st.Uid != 7 || st.Gid != 8 {
		t.Errorf("in the volume: %d:%d, %v", st.Uid, st.Gid, err)
	}
}

// TestUserNamespaceOfAnotherAgent: what one agent has made another one starts, also where files had to change hands.
func TestUserNamespaceOfAnotherAgent(t *testing.T) {
	r := newRig(t)
	if err := r.UserNamespaces(); err != nil {
		t.Skip(err)
	}
	for id, layered := range map[string]bool{"layered.0": true, "copied.0": false} {
		t.Run(id, func(t *testing.T) {
			s := r.private(t, id, "tell", "mode:/", "mode:/probe", "write:/etc", "open:/etc/hosts", "write:/own")
			s.Container.Mounts = []*typesv1.Mount{{Target: "/own"}}
			etc := "ok"
			if s.Container.ReadOnly = layered; layered { // its hosts file too, which lies on another mount
				etc = "read-only file system"
			}
			r.layered = layered
			if err := r.Prepare(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if exists(filepath.Join(r.cfg.Pins, id, layerPin(0))) != layered {
				t.Errorf("layers are mounted: %v", !layered)
			}
			next := r.again(t)
			defer next.Close()
			if _, err := next.Start(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			until(t, "the container has told all", func() bool { return strings.Contains(r.log(t, id), "that is all") })
			for question, want := range map[string]string{"mode:/": "755 0:0", "mode:/probe": "755 0:0", "write:/etc": etc, "open:/etc/hosts": etc, "write:/own": "ok"} {
				if got := answerTo(r.log(t, id), question); got != want {
					t.Errorf("%s: %q, want %q", question, got, want)
				}
			}
			if _, err := next.Remove(t.Context(), id, container.Stop{}); err != nil {
				t.Error(err)
			}
		})
	}
}
