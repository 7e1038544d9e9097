package vm

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/test/systemd"
)

const aptInstall = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "

// micro is a service that answers with limits that cgroup v2 keeps.
const micro = "shoal service create --quiet --name micro -p 30000:8000 --replicas 2 --limit-memory 64M --limit-cpu 0.5 --limit-pids 40 "

// TestMachine: our packages on one real machine: installed by apt, a service with limits, each unit started anew, the power cut.
func TestMachine(t *testing.T) {
	m := boot(t)
	if err := systemd.Package(t.Context(), m.opts.Root, "v0.0.1", filepath.Join(m.opts.Dir, "guest", "debs")); err != nil {
		t.Fatal(err)
	}
	m.on(aptInstall + "/run/guest/debs/*.deb nftables") // the last for the lab below
	m.on("shoal init --advertise-addr 10.0.2.15")
	if said := m.on("shoal doctor"); !strings.Contains(said, "version 2 with cpu, memory, pids") || !strings.Contains(said, "\n0 faults") {
		t.Errorf("doctor: %s", said)
	}
	// The laboratory's registry has the images. The lab's own host stays bare.
	m.on(m.opts.Root + "/bin/shoal-lab up --dir /var/tmp/l --managers 1 --workers 0 --no-init")
	m.on("cp -r /var/tmp/l/hosts/m1/etc/containerd/certs.d /etc/containerd/")
	m.on(micro + `$(eval "$(` + m.opts.Root + `/bin/shoal-lab env --dir /var/tmp/l)"; echo $SHOAL_LAB_REGISTRY)/micro:1.0.0`)
	m.answers()
	group := m.on("find /sys/fs/cgroup -type d -path '*shoal/*' -name '*.*' | grep -v lab | head -1")
	if got := m.on("cd " + group + " && cat cpu.max memory.max pids.max"); got != "50000 100000\n67108864\n40" {
		t.Errorf("%s has the limits %q", group, got)
	}
	before := m.containers()
	for _, unit := range []string{"ca", "store", "scheduler", "dispatcher", "gateway", "meshproxy", "agent"} {
		m.on("systemctl restart shoal-" + unit + " && systemctl is-active shoal-" + unit)
	}
	m.on("systemctl restart containerd")
	m.answers()
	if after := m.containers(); after != before {
		t.Errorf("containers before the units were started anew: %s; after: %s", before, after)
	}
	m.on("sync")
	if err := m.PowerOff(); err != nil {
		t.Fatal(err)
	}
	if err := m.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.answers()
}

// containers are the processes of the service's containers.
func (m *machine) containers() string {
	m.t.Helper()
	return m.on("ctr -n shoal task ls | awk '/RUNNING/ { print $2 }' | sort | xargs")
}

// answers waits until both tasks answer on the published port.
func (m *machine) answers() {
	m.t.Helper()
	const script = `for i in $(seq 120); do
	[ "$(shoal service ls --filter name=micro --format '{{.Replicas}}')" = 2/2 ] && curl -sS --max-time 5 http://10.0.2.15:30000/ && exit
	sleep 1
done; shoal service ps --no-trunc micro; false`
	said := m.on(script)
	if !strings.Contains(said, "hostname=") {
		m.t.Errorf("it answers %q", said)
	}
}
