package executor

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// optionCase is one container with options, and what it must see from inside: a question to the probe, and what its answer must
// match. Options that bear each other share a container; each has a line of its own.
type optionCase struct {
	name    string
	spec    string // of the container, as text; DIR is a folder of the test's
	needs   string // resources
	answers [][2]string
}

func optionMatrix() []optionCase {
	return []optionCase{
		{name: "default", answers: [][2]string{
			{"line:/proc/self/status|CapBnd", "00000000a80425fb$"}, // Docker's fourteen capabilities
			{"line:/proc/self/status|CapEff", "00000000a80425fb$"},
			{"line:/proc/self/status|NoNewPrivs", "0$"},
			{"line:/proc/self/status|Seccomp:", "2$"},
			{"keyctl:", "operation not permitted"},
			{"file:/proc/keys", "^$"},               // masked
			{"file:/proc/kcore", "^$|no such file"}, // masked, where there is one
			{"list:/sys/firmware", "^$"},            // masked
			{"open:/proc/sys/kernel/hostname", "read-only file system"},
			{"open:/proc/sysrq-trigger", "read-only file system|no such file"},
			{"line:/proc/self/mountinfo| /sys ", " ro,nosuid,nodev,noexec"},
			{"line:/proc/self/mountinfo| /sys/fs/cgroupGROUPS", "^([^;]* ro,nosuid,nodev,noexec[^;]*(; |$))+"},
			{"line:/proc/self/mountinfo| /dev/shm ", "size=65536k"},
			{"open:/dev/mem", "no such file"},
			{"file:/proc/self/oom_score_adj", "^0$"},
			{"line:/proc/self/limits|open files", "Max open files [0-9]+ HOSTFILES files"}, // Go itself raises the soft limit
			{"write:/", "ok"},
			{"hostname:", "^host-default$"},
			{"terminal:", "true"}, // /dev/null
			{"stdin:", "EOF"},
			{"list:/proc", "^1 "},
		}},
		{name: "tight", spec: `capability_drop: "ALL" capability_add: "CAP_NET_ADMIN" read_only: true
			privileges { no_new_privileges: true masked_paths: "/etc/group" read_only_paths: "/proc/self/comm" seccomp { mode: PROFILE_MODE_CUSTOM
				profile: "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"mkdir\",\"mkdirat\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":99},{\"names\":[\"keyctl\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":98,\"includes\":{\"caps\":[\"CAP_SYS_ADMIN\"]}}]}" } }`,
			answers: [][2]string{
				{"line:/proc/self/status|CapBnd", "0000000000001000$"},
				{"line:/proc/self/status|NoNewPrivs", "1$"},
				{"mkdir:/dev/x", "cannot assign requested address"},                 // errno 99
				{"keyctl:", "^(errno 0|invalid argument|function not implemented)"}, // the rule is for CAP_SYS_ADMIN alone
				{"file:/etc/group", "^$"},
				{"write:/", "read-only file system"},
			}},
		{name: "loose", spec: `capability_add: "ALL" capability_drop: "CAP_SYS_BOOT" privileges { seccomp { mode: PROFILE_MODE_UNCONFINED } host_pid: true host_ipc: true }`,
			answers: [][2]string{
				{"line:/proc/self/status|Seccomp:", " 0$"},
				{"line:/proc/self/status|CapBnd", "bfffff$"}, // without bit 22
				{"link:/proc/self/ns/pid", "HOSTPID"},
				{"link:/proc/self/ns/ipc", "HOSTIPC"},
			}},
		{name: "privileged", spec: `privileges { privileged: true }`, answers: [][2]string{
			{"line:/proc/self/status|Seccomp:", " 0$"},
			{"line:/proc/self/status|CapEff", "HOSTCAPS"},
			{"line:/proc/self/mountinfo| /sys ", " rw,"},
			{"line:/proc/self/mountinfo| /sys/fs/cgroupGROUPS", "^([^;]* rw,[^;]*(; |$))+"},
			{"open:/proc/sys/kernel/domainname", "ok"},
			{"mode:HOSTDEVICE", "[0-9]+ 0:"},
		}},
		{name: "plain", spec: `open_stdin: true user: "app" groups: "more" groups: "4321" dir: "/seeded" env: "A=b c" hostname: "given" oom_score_adj: 500 shm_bytes: 1048576
			sysctls { key: "net.core.somaxconn" value: "77" } sysctls { key: "kernel.msgmax" value: "9999" }
			ulimits { name: "core" soft: 5 hard: 6 } ulimits { name: "sigpending" soft: 70 hard: 71 } ulimits { name: "nofile" soft: 100 hard: 111 }
			devices { host_path: "HOSTDEVICE" container_path: "/dev/given" permissions: "r" } device_cgroup_rules: "c 10:7 r" cdi_devices: "shoal.test/thing=one"`,
			answers: [][2]string{
				{"ids:", "^1234 99 .*77.*88.*4321"},
				{"cwd:", "^/seeded$"},
				{"stdin:", "^open$"},
				{"env:A", "^b c$"},
				{"env:CDI_GAVE", "^this$"},
				{"line:/proc/self/status|CapEff", "0000000000000000$"}, // not root
				{"file:/proc/self/oom_score_adj", "^500$"},
				{"line:/proc/self/mountinfo| /dev/shm ", "size=1024k"},
				{"file:/proc/sys/net/core/somaxconn", "^77$"},
				{"file:/proc/sys/kernel/msgmax", "^9999$"},
				{"line:/proc/self/limits|core file", "Max core file size 5 6 "},
				{"line:/proc/self/limits|pending", "Max pending signals 70 71 "},
				{"line:/proc/self/limits|open files", "Max open files [0-9]+ 111 "},
				{"mode:/dev/given", "[0-9]+ 0:"},
			}},
		{name: "terminal", spec: `tty: true command: "/probe"`, answers: [][2]string{
			{"terminal:", "true"},
			{"link:/proc/self/fd/0", "^/dev/pts/0ok$"},
			{"link:/proc/self/fd/2", "^/dev/pts/0ok$"},
			{"args:", "^/probe tell terminal: "},
			{"env:GREETING", "^hello$"}, // the image's
		}},
		{name: "mounts", spec: `
			mounts { type: MOUNT_TYPE_BIND source: "DIR/bound" target: "/bound" }
			mounts { type: MOUNT_TYPE_BIND source: "DIR/bound" target: "/bound-ro" read_only: true }
			mounts { type: MOUNT_TYPE_BIND source: "DIR/bound" target: "/bound-flat" bind { non_recursive: true } }
			mounts { type: MOUNT_TYPE_BIND source: "DIR/bound" target: "/bound-shallow" read_only: true bind { read_only_non_recursive: true } }
			mounts { type: MOUNT_TYPE_BIND source: "DIR/bound" target: "/bound-forced" read_only: true bind { read_only_force_recursive: true } }
			mounts { type: MOUNT_TYPE_BIND source: "DIR/made/deep" target: "/made" bind { create_mountpoint: true propagation: MOUNT_PROPAGATION_RSLAVE } }
			mounts { type: MOUNT_TYPE_VOLUME source: "shared" target: "/seeded" volume { labels { key: "a" value: "b" } } }
			mounts { type: MOUNT_TYPE_VOLUME source: "bare" target: "/seeded-not" volume { no_copy: true } }
			mounts { type: MOUNT_TYPE_VOLUME source: "shared" target: "/part" read_only: true volume { subpath: "from-image" } }
			mounts { type: MOUNT_TYPE_VOLUME target: "/own" }
			mounts { type: MOUNT_TYPE_TMPFS target: "/memory" tmpfs { size_bytes: 1048576 mode: 456 options: "exec" } }
			mounts { type: MOUNT_TYPE_TMPFS target: "/dev/shm" tmpfs { size_bytes: 8192 } }`,
			answers: [][2]string{
				{"file:/bound/outside", "^of the node$"},
				{"write:/bound", "ok"},
				{"write:/bound-ro", "read-only file system"},
				{"write:/bound-ro/below", "read-only file system"}, // what is mounted below too
				{"write:/bound/below", "ok"},
				{"list:/bound-flat/below", "^$"}, // what is mounted there is left out
				{"write:/bound-shallow", "read-only file system"},
				{"write:/bound-shallow/below", "ok"},
				{"write:/bound-forced/below", "read-only file system"},
				{"write:/made", "ok"},
				{"line:/proc/self/mountinfo| /made ", " master:[0-9]+ | - "},
				{"file:/seeded/from-image", "^seed$"},
				{"write:/seeded", "ok"},
				{"list:/seeded-not", "^$"},
				{"file:/part", "^seed$"},
				{"open:/part", "read-only file system"},
				{"write:/own", "ok"},
				{"line:/proc/self/mountinfo| /memory ", " rw,nosuid,nodev,relatime - tmpfs tmpfs rw,size=1024k,mode=710"},
				{"line:/proc/self/mountinfo| /dev/shm ", "size=8k"},
			}},
	}
}

// TestOptions: every option arrives in the container unchanged, as seen from inside.
func TestOptions(t *testing.T) {
	r := newRig(t)
	dir := filepath.Join(filepath.Dir(r.config), "outside")
	outside(t, dir)
	r.machine.CDI = []string{filepath.Join(dir, "cdi")}
	words := strings.NewReplacer("DIR", dir, "HOSTPID", own(t, "pid"), "HOSTIPC", own(t, "ipc"), "HOSTCAPS", effective(t)+"$", "HOSTFILES", strconv.FormatUint(r.machine.Files, 10), "HOSTDEVICE", device(t),
		"GROUPS", map[bool]string{true: " ", false: "/"}[unified()]) // the one group of v2, or those of v1
	for _, o := range append(optionMatrix(), controlGroups()...) {
		t.Run(o.name, func(t *testing.T) {
			s := r.spec(o.name + ".0")
			s.Container = &typesv1.ContainerSpec{}
			err := prototext.Unmarshal([]byte(words.Replace(o.spec)), s.Container)
			if err == nil && o.needs != "" {
				s.Resources = &typesv1.ResourceRequirements{}
				err = prototext.Unmarshal([]byte(o.needs), s.Resources)
			}
			if err != nil {
				t.Fatal(err)
			}
			s.Container.Image = r.registry.host + "/repo:1"
			s.Container.Args = []string{"tell"}
			for _, a := range o.answers {
				s.Container.Args = append(s.Container.Args, words.Replace(a[0]))
			}
			r.run(t, s)
			until(t, "the container has told all", func() bool { return strings.Contains(r.log(t, s.ID), "that is all") })
			told := r.log(t, s.ID)
			for _, a := range o.answers {
				got := answerTo(told, words.Replace(a[0]))
				if !regexp.MustCompile(words.Replace(a[1])).MatchString(got) {
					t.Errorf("%s: %q, want %s", a[0], got, words.Replace(a[1]))
				}
			}
			keyring, err := os.ReadFile("/proc/keys")
			if err == nil && strings.Contains(string(keyring), "_ses."+s.ID) {
				t.Error("a session keyring was made for the container")
			}
			if _, err := r.Remove(t.Context(), s.ID, container.Stop{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// outside is what the node has for the containers: a folder with another mount below it, and a device by its name.
func outside(t *testing.T, dir string) {
	t.Helper()
	below, other := filepath.Join(dir, "bound", "below"), filepath.Join(dir, "other")
	for _, err := range []error{
		os.MkdirAll(below, 0o755), os.MkdirAll(other, 0o755), os.MkdirAll(filepath.Join(dir, "cdi"), 0o755),
		os.WriteFile(filepath.Join(dir, "bound", "outside"), []byte("of the node"), 0o644),
		os.WriteFile(filepath.Join(dir, "cdi", "test.json"), []byte(`{"cdiVersion":"0.5.0","kind":"shoal.test/thing",
			"devices":[{"name":"one","containerEdits":{"env":["CDI_GAVE=this"]}}]}`), 0o644),
		unix.Mount(other, below, "", unix.MS_BIND, ""), // no tmpfs: before Linux 6.3 that can't be seen with other owners
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(below, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// controlGroups are the options that a control group keeps, as cgroup v1 or v2 shows them.
func controlGroups() []optionCase {
	const limits = `limits { nano_cpus: 500000000 memory_bytes: 67108864 pids: 42 } swap_bytes: 1048576`
	refused := optionCase{name: "device", spec: `devices { host_path: "HOSTDEVICE" container_path: "/dev/given" permissions: "r" }`,
		answers: [][2]string{{"open:/dev/given", "operation not permitted"}}} // for writing, and by root
	if unified() {
		return []optionCase{refused, {name: "limits", needs: limits, answers: [][2]string{
			{"file:/sys/fs/cgroup/cpu.max", "^50000 100000$"},
			{"file:/sys/fs/cgroup/memory.max", "^67108864$"},
			{"file:/sys/fs/cgroup/memory.swap.max", "^1048576$"},
			{"file:/sys/fs/cgroup/pids.max", "^42$"},
		}}}
	}
	return []optionCase{refused, {name: "limits", needs: limits + ` memory_swappiness: 7`, spec: `device_cgroup_rules: "c 10:7 r"`, answers: [][2]string{
		{"file:/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "^50000$"},
		{"file:/sys/fs/cgroup/memory/memory.limit_in_bytes", "^67108864$"},
		{"file:/sys/fs/cgroup/memory/memory.swappiness", "^7$"},
		{"file:/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "^68157440$"},
		{"file:/sys/fs/cgroup/pids/pids.max", "^42$"},
		{"line:/sys/fs/cgroup/devices/devices.list|10:7 ", "c 10:7 r"},
	}}}
}

// unified says that this machine has cgroup v2 alone.
func unified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

func answerTo(told, question string) string {
	for line := range strings.Lines(told) {
		if rest, ok := strings.CutPrefix(line, question+" = "); ok {
			return strings.TrimRight(rest, "\r\n")
		}
	}
	return "(no answer)"
}

// own is a namespace of the test's, as a pattern.
func own(t *testing.T, kind string) string {
	t.Helper()
	to, err := os.Readlink("/proc/self/ns/" + kind)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.QuoteMeta(to)
}

// device is one that this machine has and containers have not.
func device(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/dev/kmsg", "/dev/vda", "/dev/loop-control", "/dev/fuse", "/dev/sda"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("this machine has no device to show")
	return ""
}

// TestMountRefusals: what is not there is told, with its name and what to do, and nothing is made.
// A container that shares the machine's network has no namespace of its own for it, and else is kept apart as any.
func TestHostNetwork(t *testing.T) {
	r := newRig(t)
	s := r.spec("host.0", "wait")
	s.Container.Privileges = &typesv1.Privileges{HostNetwork: true}
	pid := r.run(t, s)
	for kind, same := range map[string]bool{"net": true, "pid": false, "ipc": false, "uts": false, "mnt": false} {
		own, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		if its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind)); err != nil || (its == own) != same {
			t.Errorf("%s: %s, the machine's is %s, %v", kind, its, own, err)
		}
	}
}

func TestMountRefusals(t *testing.T) {
	r := newRig(t)
	for i, c := range []struct{ spec, want string }{
		{`mounts { type: MOUNT_TYPE_BIND source: "/no/such" target: "/a" }`, "mount /a: bind source /no/such does not exist on this node"},
		{`mounts { source: "v" target: "/a" volume { subpath: "none" } }`, `mount /a: there is no "none" in the volume`},
		{`devices { host_path: "/dev/none" }`, "devices[0]: /dev/none on this node"},
		{`cdi_devices: "no.such/thing=one"`, "cdi_devices: no.such/thing=one on this node"},
		{`privileges { selinux { type: "t" } }`, "selinux: a label is asked for, and this node has no SELinux"},
		{`privileges { apparmor { mode: PROFILE_MODE_CUSTOM profile: "p" } }`, `apparmor: profile "p" is asked for, and this node has no AppArmor`},
	} {
		s := r.spec(fmt.Sprintf("refused%d.0", i))
		s.Container = &typesv1.ContainerSpec{}
		if err := prototext.Unmarshal([]byte(c.spec), s.Container); err != nil {
			t.Fatal(err)
		}
		s.Container.Image = r.registry.host + "/repo:1"
		if err := r.Prepare(t.Context(), s); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.spec, err, c.want)
		}
	}
}

// TestVolumes: a named volume outlives its container and is filled once; one without a name ends with it.
func TestVolumes(t *testing.T) {
	r := newRig(t)
	for i, want := range []string{"from-image", "from-image written"} {
		s := r.spec(fmt.Sprintf("keeper%d.0", i), "tell", "list:/seeded", "write:/seeded", "write:/own")
		s.Container.Mounts = []*typesv1.Mount{{Source: "kept", Target: "/seeded"}, {Target: "/own"}}
		r.run(t, s)
		until(t, "the container has told all", func() bool { return strings.Contains(r.log(t, s.ID), "that is all") })
		if got := answerTo(r.log(t, s.ID), "list:/seeded"); got != want {
			t.Errorf("container %d finds %q, want %q", i, got, want)
		}
		if _, err := r.Remove(t.Context(), s.ID, container.Stop{}); err != nil {
			t.Error(err)
		}
	}
	if all, err := r.volumes.List(); err != nil || len(all) != 1 || all[0].Name != "kept" {
		t.Errorf("named volumes: %+v, %v", all, err)
	}
	if left, _ := os.ReadDir(filepath.Join(r.cfg.Volumes, "own")); len(left) > 0 {
		t.Errorf("volumes without a name are left: %v", left)
	}
}

// effective are the capabilities that the test has.
func effective(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "CapEff:")
	var caps string
	if _, err := fmt.Sscan(rest, &caps); err != nil {
		t.Fatal(err)
	}
	return caps
}
