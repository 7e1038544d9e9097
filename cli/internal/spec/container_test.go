package spec_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/testing/protocmp"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/cli/internal/spec"
)

// files are a person's.
func files(name string) ([]byte, error) {
	if text, ok := map[string]string{"filter.json": "{}", "env": "# a comment\nA=1\n\nCOLOR\nB=two words\n"}[name]; ok {
		return []byte(text), nil
	}
	return nil, errors.Join(errors.New(name), fs.ErrNotExist)
}

// TestContainerFlags: each flag of create reaches the field that it is about, and nothing else.
func TestContainerFlags(t *testing.T) {
	for _, r := range []struct{ args, want string }{
		{"-t -i --init", `tty: true open_stdin: true init: true`},
		{"--oom-score-adj -500 --shm-size 128m", `oom_score_adj: -500 shm_bytes: 134217728`},
		{"--network host", `privileges { host_network: true }`},
		{"--privileged --pid host --ipc host", `privileges { privileged: true host_pid: true host_ipc: true }`},
		{"--userns private", `privileges { user_namespace: USER_NAMESPACE_PRIVATE }`},
		{"--security-opt no-new-privileges --security-opt seccomp=unconfined --security-opt apparmor=mine", `privileges { no_new_privileges: true seccomp { mode: PROFILE_MODE_UNCONFINED } apparmor { mode: PROFILE_MODE_CUSTOM profile: "mine" } }`},
		{"--security-opt seccomp=filter.json --security-opt label=type:t --security-opt label=level:s0:c1,c2", `privileges { seccomp { mode: PROFILE_MODE_CUSTOM profile: "{}" } selinux { type: "t" level: "s0:c1,c2" } }`},
		{"--cap-add NET_ADMIN --cap-add net_admin --cap-drop ALL", `capability_add: "NET_ADMIN" capability_drop: "ALL"`},
		{"--group a --group 5 --host db:10.0.0.1 --host v6:[fd00::1] --dns 9.9.9.9 --dns-search x.y --dns-option ndots:2", `groups: "a" groups: "5" hosts: "10.0.0.1 db" hosts: "fd00::1 v6" dns_config { nameservers: "9.9.9.9" search: "x.y" options: "ndots:2" }`},
		{"--sysctl net.core.somaxconn=7 --ulimit nofile=5:6 --ulimit core=-1", `sysctls { key: "net.core.somaxconn" value: "7" } ulimits { name: "nofile" soft: 5 hard: 6 } ulimits { name: "core" soft: -1 hard: -1 }`},
		{"--device /dev/a --device /dev/b:/dev/c:r --device /dev/d:rw --device v.com/gpu=0", `devices { host_path: "/dev/a" } devices { host_path: "/dev/b" container_path: "/dev/c" permissions: "r" } devices { host_path: "/dev/d" permissions: "rw" } cdi_devices: "v.com/gpu=0"`},
		{"--mount source=v,target=/v,readonly,volume-nocopy,volume-label=a=b,volume-subpath=c", `mounts { type: MOUNT_TYPE_VOLUME source: "v" target: "/v" read_only: true volume { no_copy: true labels { key: "a" value: "b" } subpath: "c" } }`},
		{"--mount type=bind,src=/s,dst=/d,bind-propagation=rslave,bind-recursive=disabled,bind-create-src=true", `mounts { type: MOUNT_TYPE_BIND source: "/s" target: "/d" bind { propagation: MOUNT_PROPAGATION_RSLAVE non_recursive: true create_mountpoint: true } }`},
		{"--mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770,tmpfs-option=exec", `mounts { type: MOUNT_TYPE_TMPFS target: "/t" tmpfs { size_bytes: 1048576 mode: 1016 options: "exec" } }`},
		{"--health-cmd true --health-interval 1s --health-timeout 2s --health-retries 4 --health-start-period 5s --health-start-interval 6s", `healthcheck { test: "CMD-SHELL" test: "true" interval { seconds: 1 } timeout { seconds: 2 } retries: 4 start_period { seconds: 5 } start_interval { seconds: 6 } }`},
		{"--no-healthcheck --ready-http http://:8080/ok?x=1 --pre-stop-cmd bye --drain-time 5s", `healthcheck { test: "NONE" } readiness { http { port: 8080 path: "/ok?x=1" } } pre_stop { command: "CMD-SHELL" command: "bye" } drain_time { seconds: 5 }`},
		{"--health-tcp 53 --ready-http https://localhost:8443", `healthcheck { tcp { port: 53 } } readiness { http { port: 8443 path: "/" tls: true } }`},
		{"--env-file env -e B=3", `env: "A=1" env: "COLOR=blue" env: "B=3"`},
		{"--masked-path /proc/a --read-only-path /proc/b", `privileges { masked_paths: "/proc/a" read_only_paths: "/proc/b" }`},
		{"--device-cgroup-rule c_1:3_mr", `device_cgroup_rules: "c_1:3_mr"`},
	} {
		got, err := flagsOf(t, (*spec.Flags).Create, append([]string{"--name", "web"}, strings.Fields(r.args)...)...).Spec("img", nil)
		if err != nil {
			t.Errorf("%s: %v", r.args, err)
			continue
		}
		want := &typesv1.ContainerSpec{}
		if err := prototext.Unmarshal([]byte(`image: "img" `+r.want), want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.GetTask().GetContainer(), protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", r.args, diff)
		}
	}
}

// TestContainerFlagFaults: what is wrong in form is told with the flag's name.
func TestContainerFlagFaults(t *testing.T) {
	for args, want := range map[string]string{
		"--mount target=/t,type=disk":        `"disk" is not bind, volume or tmpfs`,
		"--mount source=v":                   "target is missing",
		"--mount target=/t,color=red":        `"color" is no option of a mount`,
		"--mount target=/t,readonly=maybe":   `"maybe" is not true or false`,
		"--ulimit nofile":                    `"nofile" is not NAME=SOFT[:HARD]`,
		"--host db":                          `"db" is not NAME:ADDRESS`,
		"--device /a:/b:rw:x":                "is not PATH[:PATH[:rwm]]",
		"--sysctl net.x":                     `"net.x" is not NAME=value`,
		"--security-opt seccomp=none.json":   "read none.json",
		"--security-opt magic":               `"magic" is not no-new-privileges`,
		"--pid container:x":                  `"container:x" is not host`,
		"--health-http http://db:80/":        "it is asked within the container",
		"--ready-tcp web":                    `"web" is no port`,
		"--no-healthcheck --health-cmd true": "conflicts with the other flags",
		"--env-file none":                    "read none",
		"--memory-swap lots":                 `"lots" is no amount of memory`,
	} {
		_, err := flagsOf(t, (*spec.Flags).Create, append([]string{"--name", "web"}, strings.Fields(args)...)...).Spec("img", nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v lacks %q", args, err, want)
		}
	}
}

// TestContainerUpdate: -add adds or replaces, -rm removes, a probe of another kind takes the old one's place, and what no
// flag names stays.
func TestContainerUpdate(t *testing.T) {
	start, err := flagsOf(t, (*spec.Flags).Create, "--name", "web", "--mount", "target=/a", "--mount", "target=/b", "--host", "db:10.0.0.1", "--cap-add", "NET_ADMIN",
		"--ulimit", "nofile=1", "--dns", "9.9.9.9", "--health-cmd", "true", "--health-retries", "5", "--sysctl", "net.a=1", "--device", "/dev/x", "--tty",
		"--memory-swap", "1g", "--limit-memory", "1g", "--memory-swappiness", "3").Spec("img", nil)
	if err != nil {
		t.Fatal(err)
	}
	ids := func(name string) (string, error) { return name, nil }
	change := flagsOf(t, (*spec.Flags).Update, "--mount-rm", "/a/", "--mount-add", "type=tmpfs,target=/b", "--host-rm", "db", "--host-add", "db:10.0.0.2",
		"--cap-drop", "CAP_NET_ADMIN", "--ulimit-add", "nofile=2", "--dns-rm", "9.9.9.9", "--dns-add", "1.1.1.1", "--health-tcp", "80", "--sysctl-rm", "net.a",
		"--device-rm", "/dev/x", "--memory-swap", "-1", "--memory-swappiness", "-1")
	if err := change.Change(start, ids, ids); err != nil {
		t.Fatal(err)
	}
	want := &typesv1.TaskSpec{}
	if err := prototext.Unmarshal([]byte(`container { image: "img" tty: true mounts { type: MOUNT_TYPE_TMPFS target: "/b" } hosts: "10.0.0.2 db" capability_drop: "CAP_NET_ADMIN"
		ulimits { name: "nofile" soft: 2 hard: 2 } dns_config { nameservers: "1.1.1.1" } healthcheck { tcp { port: 80 } retries: 5 } }
		resources { limits { memory_bytes: 1073741824 } swap_bytes: -1 }`), want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, start.GetTask(), protocmp.Transform(), protocmp.IgnoreEmptyMessages()); diff != "" {
		t.Error(diff)
	}
	gone := flagsOf(t, (*spec.Flags).Update, "--mount-rm", "/z", "--ulimit-rm", "core")
	if err := gone.Change(start, ids, ids); err == nil || !strings.Contains(err.Error(), `mount-rm: there is no "/z" to remove`) || !strings.Contains(err.Error(), "ulimit-rm") {
		t.Errorf("removing what is not there: %v", err)
	}
}
