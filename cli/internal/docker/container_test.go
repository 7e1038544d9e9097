package docker_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/cli/internal/docker"
)

// TestContainersAreShownInDockersForm: names and shapes are those of Docker's API, so that what reads its output reads ours.
func TestContainersAreShownInDockersForm(t *testing.T) {
	const spec = `container { image: "img" tty: true open_stdin: true init: true groups: "g" hosts: "10.0.0.1 db" oom_score_adj: 5 shm_bytes: 9
		dns_config { nameservers: "9.9.9.9" search: "x" options: "ndots:1" } sysctls { key: "net.a" value: "1" } ulimits { name: "nofile" soft: 1 hard: 2 }
		capability_add: "CAP_NET_ADMIN" capability_drop: "ALL" devices { host_path: "/dev/a" container_path: "/dev/b" permissions: "r" } cdi_devices: "v/c=0"
		privileges { no_new_privileges: true host_pid: true user_namespace: USER_NAMESPACE_PRIVATE seccomp { mode: PROFILE_MODE_UNCONFINED } apparmor { mode: PROFILE_MODE_UNCONFINED } selinux { type: "t" } }
		mounts { type: MOUNT_TYPE_BIND source: "/s" target: "/t" read_only: true bind { propagation: MOUNT_PROPAGATION_RSLAVE create_mountpoint: true } }
		mounts { type: MOUNT_TYPE_VOLUME source: "v" target: "/v" volume { no_copy: true subpath: "a" labels { key: "k" value: "l" } } }
		mounts { type: MOUNT_TYPE_TMPFS target: "/m" tmpfs { size_bytes: 8 mode: 511 options: "exec" } }
		healthcheck { test: "CMD" test: "x" interval { seconds: 1 } retries: 2 start_interval { seconds: 3 } } readiness { http { port: 80 path: "/r" } }
		pre_stop { command: "CMD" command: "bye" } drain_time { seconds: 5 } } resources { limits { memory_bytes: 5 } swap_bytes: 6 memory_swappiness: 7 }`
	const want = `{"ContainerSpec":{"Image":"img","Groups":["g"],"Privileges":{"SELinuxContext":{"Disable":false,"Type":"t"},"Seccomp":{"Mode":"unconfined"},
		"AppArmor":{"Mode":"disabled"},"NoNewPrivileges":true,"PidMode":"host","UsernsMode":"private"},"TTY":true,"OpenStdin":true,
		"Mounts":[{"Type":"bind","Source":"/s","Target":"/t","ReadOnly":true,"BindOptions":{"Propagation":"rslave","CreateMountpoint":true}},
		{"Type":"volume","Source":"v","Target":"/v","VolumeOptions":{"NoCopy":true,"Labels":{"k":"l"},"Subpath":"a"}},
		{"Type":"tmpfs","Target":"/m","TmpfsOptions":{"SizeBytes":8,"Mode":511,"Options":[["exec"]]}}],
		"Healthcheck":{"Test":["CMD","x"],"Interval":1000000000,"StartInterval":3000000000,"Retries":2},"Hosts":["10.0.0.1 db"],
		"DNSConfig":{"Nameservers":["9.9.9.9"],"Search":["x"],"Options":["ndots:1"]},"Init":true,"Sysctls":{"net.a":"1"},
		"CapabilityAdd":["CAP_NET_ADMIN"],"CapabilityDrop":["ALL"],"Ulimits":[{"Name":"nofile","Hard":2,"Soft":1}],"OomScoreAdj":5,
		"Readiness":{"HTTP":{"Port":80,"Path":"/r"}},"PreStop":["CMD","bye"],"DrainTime":5000000000,"ShmSize":9,
		"Devices":[{"PathOnHost":"/dev/a","PathInContainer":"/dev/b","CgroupPermissions":"r"}],"CDIDevices":["v/c=0"]},
		"Resources":{"Limits":{"MemoryBytes":5},"SwapBytes":6,"MemorySwappiness":7}}`
	task := &typesv1.TaskSpec{}
	if err := prototext.Unmarshal([]byte(spec), task); err != nil {
		t.Fatal(err)
	}
	shown := docker.TaskSpecOf(task)
	data, err := json.Marshal(map[string]any{"ContainerSpec": shown.ContainerSpec, "Resources": shown.Resources})
	if err != nil {
		t.Fatal(err)
	}
	var got, expected any
	for text, to := range map[string]*any{string(data): &got, want: &expected} {
		if err := json.Unmarshal([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(expected, got); diff != "" {
		t.Error(diff)
	}
}
