package admit

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

func snapshot() *state.Snapshot {
	t := state.Empty().Begin()
	t.Put(state.Wrap(&typesv1.Network{
		Meta: &typesv1.Meta{Id: "netid1"}, Spec: &typesv1.NetworkSpec{Annotations: &typesv1.Annotations{Name: "front"}},
		Ipam: &typesv1.NetworkIPAM{Subnets: []string{"10.0.0.0/24"}},
	}))
	t.Put(state.Wrap(&typesv1.Service{
		Meta: &typesv1.Meta{Id: "svc1"}, Spec: &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: "micro"}},
		Endpoint: &typesv1.Endpoint{Ports: []*typesv1.PortConfig{{PublishedPort: 30000, TargetPort: 80}}},
	}))
	return t.Commit(state.Version{EpochNumber: 1, Revision: 1}, time.Unix(0, 0))
}

// TestServiceFaults: each fault is named with its field and what would be right, and all of them at once.
func TestServiceFaults(t *testing.T) {
	const sound = `annotations { name: "web" } task { container { image: "nginx" } } `
	longNames := `annotations { name: "` + strings.Repeat("n", 62) + `" } task { container { image: "nginx" } } `
	longSource := `task { container { mounts { source: "` + strings.Repeat("s", 60) + `" target: "/a" volume { scope: VOLUME_SCOPE_SLOT } } } }`
	for _, tc := range []struct {
		name, spec string
		kind       errs.Kind
		want       []string
	}{
		{"nothing", ``, errs.Invalid, []string{"name: is missing", "image: is missing"}},
		{"sound", sound, errs.None, nil},
		{"name", `annotations { name: "-web" } task { container { image: "nginx" } }`, errs.Invalid, []string{`name: "-web" must be letters and digits, with - and _ between them`}},
		{"long name", `annotations { name: "` + strings.Repeat("a", 64) + `" } task { container { image: "nginx" } }`, errs.Invalid, []string{`has 64 characters, at most 63`}},
		{"name taken", `annotations { name: "micro" } task { container { image: "nginx" } }`, errs.Exists, []string{`name: "micro" is taken by another service`}},
		{"image", `annotations { name: "web" } task { container { image: "Micro" } }`, errs.Invalid, []string{`image: "Micro" is no image reference`}},
		{"replicas", sound + `replicated { replicas: 10001 }`, errs.Invalid, []string{`replicas: 10001 is not from 0 to 10000`}},
		{"negative replicas", sound + `replicated { replicas: 18446744073709551615 }`, errs.Invalid, []string{`replicas: 18446744073709551615 is not`}},
		{"network", sound + `task { networks { target: "fornt" } }`, errs.Precondition, []string{`networks[0]: no network "fornt"; did you mean "front"?`}},
		{"far network", sound + `task { networks { target: "backend" } }`, errs.Precondition, []string{`networks[0]: no network "backend"`}},
		{"network twice", sound + `task { networks { target: "front" } networks { target: "netid1" } }`, errs.Invalid, []string{`networks[1]: network "netid1" is named twice`}},
		{"port range", sound + `endpoint { ports { target_port: 70000 published_port: 70000 } }`, errs.Invalid, []string{
			`ports[0].target_port: 70000 is not from 1 to 65535`, `ports[0].published_port: 70000 is not from 1 to 65535`,
		}},
		{"port taken", sound + `endpoint { ports { target_port: 80 published_port: 30000 } }`, errs.Exists, []string{
			`ports[0].published_port: 30000/tcp is taken by service "micro"; leave it out to get the next free one`,
		}},
		{"port twice", sound + `endpoint { ports { target_port: 80 published_port: 9 } ports { target_port: 81 published_port: 9 } }`, errs.Invalid, []string{`ports[1].published_port: 9/tcp is asked for by ports[0] already`}},
		{"udp beside tcp", sound + `endpoint { ports { target_port: 80 published_port: 9 } ports { target_port: 80 published_port: 9 protocol: PROTOCOL_UDP } }`, errs.None, nil},
		{"own port", sound + `endpoint { ports { target_port: 80 published_port: 2377 } }`, errs.Invalid, []string{`2377/tcp is one of shoal's own`}},
		{"env", sound + `task { container { image: "nginx" env: "A=b" env: "=x" env: "bare" } }`, errs.Invalid, []string{`env[1]: "=x" must be NAME=value`, `env[2]: "bare"`}},
		{"signal", sound + `task { container { stop_signal: "rm -rf" } }`, errs.Invalid, []string{`stop_signal: "rm -rf" is no signal`}},
		{"durations", sound + `task { restart { delay { seconds: -1 } } } update { delay { seconds: -1 } }`, errs.Invalid, []string{`restart.delay: -1s is below 0`, `update.delay: -1s is below 0`}},
		{"resources", sound + `task { resources { limits { memory_bytes: 5000000 } reservations { memory_bytes: 6000000 nano_cpus: 5 } } }`, errs.Invalid, []string{
			`resources.reservations.nano_cpus: 5 is below the least`, `resources.reservations.memory_bytes: 6000000 is more than the limit`,
		}},
		{"constraints", sound + `task { placement { constraints: "node.labels.disk == ssd" constraints: "node.size == big" constraints: "ssd" } }`, errs.Invalid, []string{
			`placement.constraints[1]: unknown key "node.size"`, `placement.constraints[2]: "ssd" has none of the forms`,
		}},
		{"preferences", sound + `task { placement { preferences { spread: "node.hostname" } affinities {} affinities { label: "=x" topology: "rack" } } }`, errs.Invalid, []string{
			`placement.preferences[0]: "node.hostname" must be node.labels.NAME`, `placement.affinities[0]: names neither`,
			`placement.affinities[1]: "=x" names no label`, `placement.affinities[1].topology: "rack" must be`,
		}},
		{"global", sound + `global {} task { placement { max_replicas: 1 } } job { schedule { cron: "@daily" } }`, errs.Invalid, []string{
			`placement.max_replicas: has no meaning for a global service`, `job: is for jobs, and the mode is global`,
		}},
		{"job", sound + `replicated_job { total_completions: 0 max_concurrent: 0 } update {} rollback {} max_unavailable: 1 job { deadline { seconds: -1 } schedule { cron: "0 0 30 2 *" } }`, errs.Invalid, []string{
			`replicated_job.total_completions: 0 is not from 1`, `replicated_job.max_concurrent: is 0`, `update: is not for jobs`, `rollback: is not for jobs`,
			`max_unavailable: is not for jobs`, `job.deadline: -1s is below 0`, `job.schedule: schedule "0 0 30 2 *" never comes`,
		}},
		{"schedule", sound + `global_job {} job { schedule { cron: "61 25 31 13 *" time_zone: "Nowhere" concurrency: 9 catch_up { seconds: -1 } } }`, errs.Invalid, []string{
			`unknown time zone "Nowhere"`, `minute: "61" is not`, `hour: "25" is not`, `month: "13" is not`,
			`job.schedule.concurrency: 9 is not known`, `job.schedule.catch_up: -1s is below 0`,
		}},
		{"impossible in every way", sound + `replicated_job { total_completions: 3 max_concurrent: 0 } update { parallelism: 0 max_failure_ratio: 2 } job { schedule { cron: "0 0 31 2 *" } }
			task { placement { constraints: "node.size == big" } restart { delay { seconds: -1 } } resources { reservations { nano_cpus: -1 } } }`, errs.Invalid, []string{
			`replicated_job.max_concurrent: is 0`, `update: is not for jobs`, `job.schedule: schedule "0 0 31 2 *" never comes`,
			`placement.constraints[0]: unknown key "node.size"`, `restart.delay: -1s is below 0`, `resources.reservations.nano_cpus: -1 is below the least`,
		}},
		{"update", sound + `update { max_failure_ratio: 1.5 monitor { seconds: -1 } } rollback { failure_action: FAILURE_ACTION_ROLLBACK } max_unavailable: 0`, errs.Invalid, []string{
			`update.max_failure_ratio: 1.5 is not from 0 to 1`, `update.monitor: -1s is below 0`, `rollback.failure_action: cannot be rollback`, `max_unavailable: is 0`,
		}},
		{"no ratio", sound + `update { max_failure_ratio: nan }`, errs.Invalid, []string{`update.max_failure_ratio: NaN is not`}},
		{"generic", sound + `task { resources { reservations { generic { discrete: 1 } generic { kind: "gpu" named: "u1" discrete: 1 } generic { kind: "gpu" } } limits { generic { kind: "gpu" discrete: 1 } } } }`, errs.Invalid, []string{
			`reservations.generic[0].kind: is missing`, `reservations.generic[1]: "gpu" asks for a piece and for an amount`, `reservations.generic[2]: "gpu" must be an amount`, `limits.generic: generic`,
		}},
		{"back-off", sound + `task { restart { delay { seconds: 10 } max_delay { seconds: 5 } } }`, errs.Invalid, []string{`restart.max_delay: 5s is below the delay, 10s`}},
		{"capabilities", sound + `task { container { capability_add: "net_admin" capability_add: "CAP_FLY" capability_drop: "NET_ADMIN" } }`, errs.Invalid, []string{
			`capability_add[1]: "CAP_FLY" is no capability`, `capability_drop: CAP_NET_ADMIN is added and dropped`,
		}},
		{"privileged", sound + `task { container { privileges { privileged: true host_pid: true } } }`, errs.Precondition, []string{
			`privileges.privileged: this cluster does not allow it: containers.allow_privileged is off`, `privileges.host_pid: this cluster does not allow it: containers.allow_host_namespaces is off`,
		}},
		{"host network", sound + `endpoint { ports { target_port: 80 } } task { networks { target: "nowhere" } container { sysctls { key: "net.core.somaxconn" value: "9" } privileges { host_network: true } } }`, errs.Invalid, []string{
			`privileges.host_network: this cluster does not allow it: containers.allow_host_namespaces is off`, `networks[0]: no network`, `networks: a task on its node's own network can be on no other`,
			`ports: a task on its node's own network publishes nothing`, `sysctls: "net.core.somaxconn" would change the whole node`,
		}},
		{"user namespace", sound + `task { container { mounts { type: MOUNT_TYPE_BIND source: "/a" target: "/b" bind { propagation: MOUNT_PROPAGATION_RSHARED } } privileges { user_namespace: USER_NAMESPACE_PRIVATE privileged: true host_pid: true host_ipc: true host_network: true } } }`, errs.Invalid, []string{
			`privileges.privileged: this cluster`, `privileges.host_pid: this cluster`, `privileges.host_ipc: this cluster`, `privileges.host_network: this cluster`,
			`privileges.privileged: needs the node's user ids`, `privileges.host_pid: needs the node's user ids`, `privileges.host_ipc: needs`, `privileges.host_network: needs`,
			`mounts[0].bind.propagation: mounts made in a user namespace are never seen outside`,
		}},
		{"no such user namespace", sound + `task { container { privileges { user_namespace: 9 } } }`, errs.Invalid, []string{`privileges.user_namespace: 9 is not known`}},
		{"profiles", sound + `task { container { privileges { seccomp { mode: PROFILE_MODE_CUSTOM profile: "{" } apparmor { mode: PROFILE_MODE_CUSTOM } selinux { disable: true type: "x" } masked_paths: "proc" } } }`, errs.Invalid, []string{
			`privileges.apparmor.profile: is missing`, `privileges.seccomp.profile: is not in Docker's JSON form`, `privileges.selinux: is disabled and has a label`, `privileges.masked_paths[0]: "proc" must be an absolute path`,
		}},
		{"mounts", sound + `task { container { mounts { type: MOUNT_TYPE_BIND source: "data" target: "/a" } mounts { target: "/a/" source: "/x" } mounts { type: MOUNT_TYPE_TMPFS source: "x" target: "b" tmpfs { options: "size=1" } bind {} } mounts { target: "/" source: "v" volume { subpath: "../x" } } } }`, errs.Invalid, []string{
			`mounts[0].source: "data" must be an absolute path on the node`, `mounts[1].target: "/a" is taken by mounts[0]`, `mounts[1].source: "/x" is no name of a volume`,
			`mounts[2].target: "b" must be an absolute path`, `mounts[2].bind: is not for a mount of type tmpfs`, `mounts[2].source: is not for a mount of type tmpfs`,
			`mounts[2].tmpfs.options[0]: "size=1" is not one of`, `mounts[3].target: is the root`, `mounts[3].volume.subpath: "../x" must be a path within`,
		}},
		{"probes", sound + `task { container { healthcheck { test: "curl" http {} retries: 5000 } readiness { interval { nanos: 10 } } pre_stop { command: "CMD" } drain_time { seconds: 3601 } } }`, errs.Invalid, []string{
			`healthcheck: says several ways`, `healthcheck.test: begins with "curl"`, `healthcheck.http.port: 0 is not`, `healthcheck.retries: 5000`,
			`readiness.interval: 10ns is below 1ms`, `readiness: says not what to look at`, `pre_stop.command: CMD needs a command`, `drain_time: 1h0m1s is above 1h0m0s`,
		}},
		{"names", sound + `task { container { hosts: "db 10.0.0.1" hosts: "host-gateway box" dns_config { nameservers: "ns" search: "a b" options: "rm -rf" } hostname: "{{.Task.Name" env: "A={{.Color}}" } }`, errs.Invalid, []string{
			`hosts[0]: "db 10.0.0.1" must be ADDRESS NAME`, `dns_config.nameservers[0]: "ns" is no address`, `dns_config.search[0]: "a b" is no domain`,
			`dns_config.options[0]: "rm -rf" is no option`, `hostname: "{{.Task.Name": {{ has no }}`, `env[0]: "{{.Color}}": {{.Color}} is not known`,
		}},
		{"kernel", sound + `task { container { sysctls { key: "vm.overcommit" value: "1" } ulimits { name: "nofiles" } ulimits { name: "core" soft: 5 hard: 4 } oom_score_adj: 2000 shm_bytes: 1 } resources { swap_bytes: -2 memory_swappiness: 101 } }`, errs.Invalid, []string{
			`sysctls: "vm.overcommit" is not a container's own`, `ulimits[0].name: "nofiles" is not one of`, `ulimits[1].soft: 5 is above`, `oom_score_adj: 2000`, `shm_bytes: 1 is below`,
			`resources.swap_bytes: needs a memory limit`, `resources.swap_bytes: -2 is below -1`, `resources.memory_swappiness: 101`,
		}},
		{"disk", sound + `task { resources { reservations { disk_bytes: -1 } limits { disk_bytes: 5 } } }`, errs.Invalid, []string{
			`resources.reservations.disk_bytes: -1 is below 0`, `resources.limits.disk_bytes: disk can be reserved and not limited`,
		}},
		{"slot volumes", sound + `replicated_job {} job { schedule { cron: "@daily" concurrency: CONCURRENCY_POLICY_ALLOW } } task { container {
			mounts { source: "a.b" target: "/a" volume { scope: VOLUME_SCOPE_SLOT } } mounts { target: "/b" volume { scope: VOLUME_SCOPE_SLOT } }
			mounts { source: "{{.Task.Slot}}" target: "/c" volume { scope: VOLUME_SCOPE_SLOT } } mounts { source: "x" target: "/d" volume { scope: 7 } } } }`, errs.Invalid, []string{
			`mounts[0].source: "a.b" is no name of a slot's volume`, `mounts[1].source: "" is no name of a slot's volume`, `mounts[2].source: "{{.Task.Slot}}" is no name`,
			`mounts[3].volume.scope: 7 is not known`, `job.schedule.concurrency: must be forbid or replace`,
		}},
		{"slot volumes stay", sound + `replicated {} rebalance { always: true } task { container { mounts { source: "x" target: "/d" volume { scope: VOLUME_SCOPE_SLOT } } } }`, errs.Invalid, []string{
			`rebalance.always: is not for a service whose tasks stay`,
		}},
		{"sound slot volume", sound + `global {} task { container { mounts { source: "data" target: "/a" volume { scope: VOLUME_SCOPE_SLOT subpath: "x" } } } }`, errs.None, nil},
		{"long name of a slot's volume", longNames + `replicated { replicas: 1 } ` + longSource, errs.Invalid, []string{
			`mounts[0].source: "` + strings.Repeat("s", 60) + `" is too long beside the service's name: the volume ` + strings.Repeat("n", 62) + `.10000.` + strings.Repeat("s", 60) + ` has 129 characters, at most 128`,
		}},
		{"long name of a job's volume", longNames + `replicated_job { total_completions: 1 max_concurrent: 1 } ` + longSource, errs.Invalid, []string{`mounts[0].source: `}},
		{"long name of a node's own", longNames + `global {} ` + longSource, errs.None, nil},
		{"devices", sound + `task { container { devices { host_path: "null" permissions: "x" } device_cgroup_rules: "c 1 rwm" cdi_devices: "gpu" } }`, errs.Invalid, []string{
			`devices[0].host_path: "null" must be`, `devices[0].container_path: "null" must be`, `devices[0].permissions: "x" must be`, `device_cgroup_rules[0]: "c 1 rwm" must be`, `cdi_devices[0]: "gpu" must be`,
		}},
		{"dnsrr", sound + `endpoint { mode: ENDPOINT_MODE_DNSRR }`, errs.None, nil},
		{"dnsrr with a port", sound + `endpoint { mode: ENDPOINT_MODE_DNSRR ports { target_port: 80 } }`, errs.Invalid, []string{`ports[0]: a service with endpoint mode dnsrr`}},
		{"no such mode", sound + `endpoint { mode: 7 }`, errs.Invalid, []string{`endpoint.mode: 7 is not known`}},
		{"how a port is served", sound + `endpoint { ports { target_port: 80 dataplane: 9 traffic_policy: 9 session_affinity: 9 host_ip: "eth0" } ports { target_port: 81 host_ip: "10.0.0.0/8" } }`, errs.Invalid, []string{
			`ports[0].dataplane: 9 is not known`, `ports[0].traffic_policy: 9 is not known`, `ports[0].session_affinity: 9 is not known`, `ports[0].host_ip: "eth0" is no IP address`,
		}},
		{"PROXY protocol", sound + `endpoint { ports { target_port: 80 proxy_protocol: true } ports { target_port: 81 proxy_protocol: true dataplane: DATAPLANE_USERSPACE } }`, errs.None, nil},
		{"PROXY protocol that cannot be", sound + `endpoint { ports { target_port: 80 protocol: PROTOCOL_UDP proxy_protocol: true } ports { target_port: 81 proxy_protocol: true dataplane: DATAPLANE_KERNEL } }`, errs.Invalid, []string{
			`ports[0].proxy_protocol: is spoken on TCP alone`, `ports[1].proxy_protocol: the kernel cannot speak it`,
		}},
		{"host port", sound + `endpoint { ports { target_port: 80 publish_mode: PUBLISH_MODE_HOST } ports { target_port: 81 published_port: 31000 publish_mode: PUBLISH_MODE_HOST } }`, errs.None, nil},
		{"host port and ingress", sound + `endpoint { ports { target_port: 80 published_port: 30000 publish_mode: PUBLISH_MODE_HOST } ports { target_port: 80 published_port: 9 publish_mode: PUBLISH_MODE_HOST } ports { target_port: 81 published_port: 9 } }`, errs.Invalid, []string{
			`ports[0].published_port: 30000/tcp is taken by service "micro"`, `ports[2].published_port: 9/tcp is asked for by ports[1] already`,
		}},
		{"rebalance", sound + `global {} rebalance { always: true }`, errs.Invalid, []string{`rebalance: is for replicated services, and the mode is global`}},
		{"rebalance nowhere", sound + `rebalance { request: 1 request_node_id: "gone" }`, errs.Precondition, []string{`rebalance.request_node_id: no node "gone"`}},
		{"depends on", sound + `depends_on: "micro"`, errs.None, nil},
		{"depends on nobody", sound + `depends_on: "mikro" depends_on: "" depends_on: "web" depends_on: "svc1" depends_on: "micro"`, errs.Invalid, []string{
			`depends_on[0]: no service "mikro"; did you mean "micro"?`, `depends_on[1]: names no service`, `depends_on[2]: "web" is the service itself`,
			`depends_on[4]: "micro" is named twice`,
		}},
		{"callers", sound + `endpoint { allow_from: "micro" allow_from: "label:tier=front" allow_from: "192.0.2.0/24" allow_from: "2001:db8::1" }`, errs.None, nil},
		{"callers that are nobody", sound + `endpoint { allow_from: "mikro" allow_from: "web" allow_from: "micro" allow_from: "svc1" allow_from: "10.0.0.1/8" allow_from: "a:b" allow_from: "192.0.2.1" allow_from: "192.0.2.1/32" }`, errs.Invalid, []string{
			`endpoint.allow_from[0]: no service "mikro"; did you mean "micro"?`, `endpoint.allow_from[1]: "web" is the service itself`,
			`endpoint.allow_from[3]: "svc1" is named twice`, `endpoint.allow_from[4]: 10.0.0.1/8 has bits behind its prefix`,
			`endpoint.allow_from[5]: "a:b" is no service`, `endpoint.allow_from[7]: "192.0.2.1/32" is named twice`,
		}},
		{"sound job", sound + `replicated_job { total_completions: 7 max_concurrent: 2 } job { schedule { cron: "0 2 * * *" time_zone: "Europe/Berlin" } }`, errs.None, nil},
		{"priority", sound + `priority: 1001`, errs.Invalid, []string{`priority: 1001 is not from -1000 to 1000`}},
		{"low priority", sound + `priority: -1000`, errs.None, nil},
		{"autoscale", sound + `autoscale { min: 5 max: 3 cpu_percent: 2000 memory_percent: 50 up_window { seconds: 7200 } down_window { seconds: -1 } max_step: 10001 }`, errs.Invalid, []string{
			`autoscale.min: 5 is above the most, 3`, `autoscale.cpu_percent: 2000 is not from 0 to 1000`, `autoscale.cpu_percent: is a share of nothing`,
			`autoscale.memory_percent: is a share of nothing`, `autoscale.up_window: 2h0m0s is above the most`, `autoscale.down_window: -1s is below 0`, `autoscale.max_step: 10001 is not`,
		}},
		{"autoscale of nothing", sound + `autoscale {}`, errs.Invalid, []string{`autoscale.max: is missing`, `autoscale: has no target`}},
		{"autoscale by connections to nobody", sound + `autoscale { max: 3 connections: 1000001 }`, errs.Invalid, []string{
			`autoscale.connections: 1000001 is not from 0 to 1000000`, `autoscale.connections: nothing is counted`,
		}},
		{"sound autoscale by connections", sound + `autoscale { max: 3 connections: 1000000 } endpoint { ports { target_port: 80 } }`, errs.None, nil},
		{"autoscale begins", sound + `replicated { replicas: 9 } autoscale { min: 2 max: 3 memory_bytes: 4194304 }`, errs.Invalid, []string{`replicas: 9 is not from autoscale.min to autoscale.max, 2 to 3`}},
		{"autoscale of all", sound + `global {} autoscale { max: 3 memory_bytes: 4194304 }`, errs.Invalid, []string{`autoscale: is for replicated services, and the mode is global`}},
		{"sound autoscale", sound + `task { resources { limits { nano_cpus: 1000000000 } } } autoscale { max: 3 cpu_percent: 50 }`, errs.None, nil},
		{"sound global", sound + `global {}`, errs.None, nil},
		{"mixed kinds", `annotations { name: "micro" } task { container { image: "nginx" } networks { target: "nowhere" } }`, errs.Invalid, []string{`name: "micro" is taken`, `networks[0]: no network`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := &typesv1.ServiceSpec{}
			if err := (prototext.UnmarshalOptions{}).Unmarshal([]byte(merge(tc.spec)), spec); err != nil {
				t.Fatal(err)
			}
			_, f := Service(snapshot(), "", spec)
			err := f.Err(`create service "web"`)
			if errs.KindOf(err) != tc.kind {
				t.Errorf("kind %v, want %v: %v", errs.KindOf(err), tc.kind, err)
			}
			if got := len(errs.FaultsOf(err)); got != len(tc.want) {
				t.Errorf("%d faults, want %d: %v", got, len(tc.want), err)
			}
			for _, w := range tc.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("lacks %q:\n%v", w, err)
				}
			}
		})
	}
}

// merge makes one task of two: text protos refuse a field that comes twice.
func merge(s string) string {
	const first = `task { container { image: "nginx" } } `
	if i := strings.LastIndex(s, "task {"); i > strings.Index(s, "task {") {
		rest := s[i+len("task {"):]
		s = strings.Replace(s[:i], first, "", 1)
		if strings.Contains(rest, "container {") {
			if !strings.Contains(rest, "image:") {
				rest = strings.Replace(rest, "container {", `container { image: "nginx"`, 1)
			}
			return s + "task {" + rest
		}
		return s + `task { container { image: "nginx" } ` + rest
	}
	return s
}

// TestDependencies: a cycle is refused with its way round, whoever closes it; one that is gone may stay named, and an id
// becomes a name.
func TestDependencies(t *testing.T) {
	txn := state.Empty().Begin()
	for name, on := range map[string][]string{"web": {"api"}, "api": {"db", "cache"}, "cache": {"gone"}, "db": nil} {
		txn.Put(state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: "id-" + name}, Spec: &typesv1.ServiceSpec{
			Annotations: &typesv1.Annotations{Name: name}, DependsOn: on}}))
	}
	s := txn.Commit(state.Version{EpochNumber: 1, Revision: 1}, time.Unix(0, 0))
	for _, tc := range []struct {
		name, want string
		on         []string
	}{
		{"db", "depends_on[0]: is a cycle: db -> web -> api -> db", []string{"web"}},
		{"cache", "", []string{"gone", "db"}},
		{"gone", "depends_on[0]: is a cycle: gone -> web -> api -> cache -> gone", []string{"web"}},
		{"api", `depends_on[0]: no service "gone"`, []string{"gone"}},
		{"web", "", []string{"id-db"}},
	} {
		id := "id-" + tc.name
		if tc.name == "gone" {
			id = ""
		}
		out, f := Service(s, id, &typesv1.ServiceSpec{
			Annotations: &typesv1.Annotations{Name: tc.name}, DependsOn: tc.on, Task: &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "nginx"}},
		})
		err := f.Err("x")
		if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if tc.name == "web" && out.GetDependsOn()[0] != "db" {
			t.Errorf("an id stays: %v", out.GetDependsOn())
		}
	}
}

// TestHostPorts: a port on every machine must not be a host port of another service, nor one that a task has got for itself;
// two services may have the same host port.
func TestHostPorts(t *testing.T) {
	host := func(port uint32) *typesv1.PortConfig {
		return &typesv1.PortConfig{Protocol: typesv1.Protocol_PROTOCOL_TCP, TargetPort: 80, PublishedPort: port, PublishMode: typesv1.PublishMode_PUBLISH_MODE_HOST}
	}
	txn := snapshot().Begin()
	txn.Put(state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: "svc2"}, Spec: &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: "edge"}},
		Endpoint: &typesv1.Endpoint{Ports: []*typesv1.PortConfig{host(9000), host(0)}}}))
	txn.Put(state.Wrap(&typesv1.Task{Meta: &typesv1.Meta{Id: "t1"}, ServiceId: "svc2", Decided: &typesv1.TaskDecided{HostPorts: []*typesv1.PortConfig{host(61007)}}}))
	s := txn.Commit(state.Version{EpochNumber: 1, Revision: 2}, time.Unix(0, 0))
	for _, tc := range []struct {
		mode typesv1.PublishMode
		port uint32
		want string
	}{
		{typesv1.PublishMode_PUBLISH_MODE_HOST, 9000, ""},
		{typesv1.PublishMode_PUBLISH_MODE_HOST, 30000, `30000/tcp is taken by service "micro"`},
		{typesv1.PublishMode_PUBLISH_MODE_INGRESS, 9000, `9000/tcp is taken on the machines of service "edge"`},
		{typesv1.PublishMode_PUBLISH_MODE_INGRESS, 61007, `61007/tcp is taken by a task of service "edge" on its machine; choose one below 61000`},
		{typesv1.PublishMode_PUBLISH_MODE_INGRESS, 61008, ""},
	} {
		_, f := Service(s, "", &typesv1.ServiceSpec{
			Annotations: &typesv1.Annotations{Name: "web"}, Task: &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "nginx"}},
			Endpoint: &typesv1.EndpointSpec{Ports: []*typesv1.PortConfig{{TargetPort: 80, PublishedPort: tc.port, PublishMode: tc.mode}}},
		})
		if err := f.Err("x"); (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v %d: %v, want %q", tc.mode, tc.port, err, tc.want)
		}
	}
}

// TestModeStays: a service keeps the kind of mode that it was made with, and its name says what to do instead.
func TestModeStays(t *testing.T) {
	txn := snapshot().Begin()
	txn.Put(state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: "svc3"}, Spec: &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: "log"},
		Mode: &typesv1.ServiceSpec_Global{Global: &typesv1.Global{}}}}))
	s := txn.Commit(state.Version{EpochNumber: 1, Revision: 2}, time.Unix(0, 0))
	for _, tc := range []struct{ spec, want string }{
		{`global {}`, ""},
		{`replicated { replicas: 2 }`, "mode: is global and cannot become replicated; remove the service and create it anew"},
		{`global_job {}`, "mode: is global and cannot become global-job"},
		{`replicated_job {}`, "mode: is global and cannot become replicated-job"},
		{``, "mode: is global and cannot become replicated"},
	} {
		spec := &typesv1.ServiceSpec{}
		if err := prototext.Unmarshal([]byte(`annotations { name: "log" } task { container { image: "nginx" } } `+tc.spec), spec); err != nil {
			t.Fatal(err)
		}
		_, f := Service(s, "svc3", spec)
		if err := f.Err("x"); (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.spec, err, tc.want)
		}
	}
}

// TestServiceDefaults: what a person leaves out is filled in, so that what is stored says all, and filling in again
// changes nothing.
func TestServiceDefaults(t *testing.T) {
	in := &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: "web"},
		Task: &typesv1.TaskSpec{
			Container: &typesv1.ContainerSpec{Image: "nginx"}, Networks: []*typesv1.NetworkAttachment{{Target: "front"}},
		},
		Endpoint: &typesv1.EndpointSpec{Ports: []*typesv1.PortConfig{{TargetPort: 80}}},
	}
	out, f := Service(snapshot(), "", in)
	if err := f.Err("x"); err != nil {
		t.Fatal(err)
	}
	if out.GetReplicated().GetReplicas() != 1 || out.GetTask().GetNetworks()[0].GetTarget() != "netid1" ||
		out.GetTask().GetRestart().GetDelay().AsDuration() != 5*time.Second ||
		out.GetTask().GetContainer().GetStopGracePeriod().AsDuration() != 10*time.Second ||
		out.GetUpdate().GetParallelism() != 1 || out.GetEndpoint().GetPorts()[0].GetProtocol() != typesv1.Protocol_PROTOCOL_TCP {
		t.Errorf("defaults: %v", out)
	}
	if in.GetTask().GetNetworks()[0].GetTarget() != "front" || in.GetMode() != nil {
		t.Error("the caller's spec was changed")
	}
	again, _ := Service(snapshot(), "", out)
	if d := cmp.Diff(out.String(), again.String()); d != "" {
		t.Error(d)
	}
	if own, f := Service(snapshot(), "svc1", &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: "micro"}, Task: out.GetTask(),
		Endpoint: &typesv1.EndpointSpec{Ports: []*typesv1.PortConfig{{TargetPort: 80, PublishedPort: 30000}}},
	}); f.Err("x") != nil {
		t.Errorf("a service clashes with itself: %v, %v", f.Err("x"), own)
	}
}

// TestOthers: networks, nodes and the cluster's settings.
func TestOthers(t *testing.T) {
	used := []netip.Prefix{netip.MustParsePrefix("10.128.0.0/10")}
	network := func(name, driver string, subnets ...string) error {
		_, f := Network(snapshot(), &typesv1.NetworkSpec{Annotations: &typesv1.Annotations{Name: name}, Driver: driver, Subnets: subnets}, used)
		return f.Err("network")
	}
	detailed := func(text string) error {
		spec := &typesv1.NetworkSpec{}
		if err := prototext.Unmarshal([]byte(`annotations { name: "back" }`+text), spec); err != nil {
			t.Fatal(err)
		}
		_, f := Network(snapshot(), spec, used)
		return f.Err("network")
	}
	const both = ` subnets: "10.5.0.0/16" subnets: "fd01::/64" `
	node := func(s *typesv1.NodeSpec) error {
		_, f := Node(s, &typesv1.NodeSpec{Role: typesv1.NodeRole_NODE_ROLE_WORKER})
		return f.Err("node")
	}
	settings := func(s *typesv1.ClusterSpec) error {
		_, f := Cluster(s, &typesv1.ClusterSpec{Annotations: &typesv1.Annotations{Name: "default"}, FeatureLevel: 1})
		return f.Err("cluster")
	}
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"network", network("back", ""), ""},
		{"network with a subnet", network("back", "overlay", "10.5.0.0/16"), ""},
		{"network taken", network("front", ""), "network with name front already exists"},
		{"driver", network("back", "bridge"), `"bridge" is not known`},
		{"no subnet", network("back", "", "10.5"), `subnets[0]: "10.5" is no subnet`},
		{"unmasked", network("back", "", "10.5.0.1/16"), "10.5.0.0/16 is meant?"},
		{"overlap", network("back", "", "10.130.0.0/16"), "10.130.0.0/16 overlaps 10.128.0.0/10"},
		{"small", network("back", "", "10.5.0.0/30"), "from /8 to /29"},
		{"both families", detailed(both + `gateways: "10.5.0.9" gateways: "fd01::9" ip_ranges: "10.5.1.0/24" ip_ranges: "fd01::/80" aux_addresses { key: "a" value: "10.5.0.8" } mtu: 1400`), ""},
		{"IPv6 of its own", detailed(`ipv6: true`), ""},
		{"two of a family", detailed(`subnets: "10.5.0.0/16" subnets: "10.6.0.0/16"`), "10.6.0.0/16 is one more of its family"},
		{"large IPv6", detailed(`subnets: "fd01::/32"`), "fd01::/32 must be from /48 to /120"},
		{"range elsewhere", detailed(both + `ip_ranges: "10.6.0.0/24"`), "ip_ranges[0]: 10.6.0.0/24 is in no subnet"},
		{"range without a subnet", detailed(`ip_ranges: "10.0.1.0/24"`), "name its subnet too"},
		{"range twice", detailed(both + `ip_ranges: "10.5.1.0/24" ip_ranges: "10.5.2.0/24"`), "ip_ranges[1]: 10.5.2.0/24 is one more of subnet"},
		{"range of nothing", detailed(both + `ip_ranges: "10.5.1.1/24"`), `"10.5.1.1/24" is no range`},
		{"gateway elsewhere", detailed(both + `gateways: "10.6.0.1"`), "gateways[0]: 10.6.0.1 is in no subnet"},
		{"gateway twice", detailed(both + `gateways: "10.5.0.1" gateways: "10.5.0.3"`), "gateways[1]: 10.5.0.3 is one more of subnet"},
		{"the subnet itself", detailed(both + `gateways: "10.5.0.0"`), "10.5.0.0 is the subnet's own"},
		{"address twice", detailed(both + `gateways: "10.5.0.1" aux_addresses { key: "a" value: "10.5.0.1" }`), "aux_addresses.a: 10.5.0.1 is named by gateways[0] already"},
		{"no address", detailed(both + `aux_addresses { key: "a" value: "x" }`), `aux_addresses.a: "x" is no address`},
		{"small packets", detailed(`mtu: 576`), "mtu: 576 is not from 1280"},
		{"node", node(&typesv1.NodeSpec{Availability: typesv1.Availability_AVAILABILITY_DRAIN}), ""},
		{"node availability", node(&typesv1.NodeSpec{Availability: 77}), "availability: 77 is not known"},
		{"node role", node(&typesv1.NodeSpec{Role: typesv1.NodeRole_NODE_ROLE_MANAGER}), "comes with the token"},
		{"cluster", settings(&typesv1.ClusterSpec{FeatureLevel: 1}), ""},
		{"cluster life", settings(&typesv1.ClusterSpec{FeatureLevel: 1, CertificateLife: durationpb.New(time.Second)}), "certificate_life: 1s is below the least"},
		{"cluster ports", settings(&typesv1.ClusterSpec{FeatureLevel: 1, FirstPort: 40000}), "first_port: 40000 is above last_port"},
		{"cluster strategy", settings(&typesv1.ClusterSpec{FeatureLevel: 1, Scheduling: &typesv1.SchedulingConfig{Strategy: 9}}), "scheduling.strategy: 9 is not known"},
		{"keys that hardly live", settings(&typesv1.ClusterSpec{FeatureLevel: 1, Encryption: &typesv1.Encryption{KeyLife: durationpb.New(time.Minute)}}), "encryption.key_life: 1m0s is below the least"},
		{"cluster dataplane", settings(&typesv1.ClusterSpec{FeatureLevel: 1, Dataplane: 9}), "dataplane: 9 is not known"},
		{"cluster loss", settings(&typesv1.ClusterSpec{FeatureLevel: 1, Scheduling: &typesv1.SchedulingConfig{MassLossPercent: new(uint32(101))}}), "scheduling.mass_loss_percent: 101 is not from 1 to 100"},
		{"cluster window", settings(&typesv1.ClusterSpec{FeatureLevel: 1, Scheduling: &typesv1.SchedulingConfig{FlapWindow: durationpb.New(-1)}}), "scheduling.flap_window: -1ns is below 0"},
		{"cluster level", settings(&typesv1.ClusterSpec{}), "feature_level: 0 is below 1"},
	} {
		if (tc.err == nil) != (tc.want == "") || (tc.err != nil && !strings.Contains(tc.err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, tc.err, tc.want)
		}
	}
}

// TestScaleByHand: the replicas of a service that follows its load are nobody's to set; when it stops to follow, it keeps what
// it has.
func TestScaleByHand(t *testing.T) {
	spec := func(replicas uint64, auto *typesv1.Autoscale) *typesv1.ServiceSpec {
		return &typesv1.ServiceSpec{
			Annotations: &typesv1.Annotations{Name: "web"}, Task: &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "nginx"}},
			Mode: &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: new(replicas)}}, Autoscale: auto,
		}
	}
	auto := &typesv1.Autoscale{Min: 2, Max: 9, MemoryBytes: 1 << 30}
	with := snapshot().Begin()
	with.Put(state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: "web"}, Spec: spec(3, auto), Scale: &typesv1.ServiceScale{Replicas: 7}}))
	s := with.Commit(state.Version{EpochNumber: 1, Revision: 2}, time.Unix(0, 0))
	if _, f := Service(s, "web", spec(5, auto)); f.Err("x") == nil || !strings.Contains(f.Err("x").Error(), "replicas: follows the load, from 2 to 9") {
		t.Errorf("scaled by hand: %v", f.Err("x"))
	}
	if _, f := Service(s, "web", spec(3, &typesv1.Autoscale{Min: 5, Max: 9, MemoryBytes: 1 << 30})); f.Err("x") != nil {
		t.Errorf("bounds: %v", f.Err("x"))
	}
	for given, want := range map[uint64]uint64{3: 7, 4: 4} {
		if out, f := Service(s, "web", spec(given, nil)); f.Err("x") != nil || out.GetReplicated().GetReplicas() != want {
			t.Errorf("taken away with %d replicas given: %d, want %d; %v", given, out.GetReplicated().GetReplicas(), want, f.Err("x"))
		}
	}
}
