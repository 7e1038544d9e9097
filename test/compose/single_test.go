package compose_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// all are the processes of a machine with a whole cluster.
func all() []string {
	return []string{"store", "ca", "scheduler", "dispatcher", "gateway", "meshproxy", "agent"}
}

// A whole cluster on one machine, by each of the two programs: up in one command, a service answers, and nothing that
// happens to our containers touches a user's. In the end nothing of ours is left.
func TestSingleMachine(t *testing.T) {
	_, machines := newLab(t, 1)
	m := machines[0]
	image := registryImage(t, m)
	for _, p := range programs(t) {
		ok := t.Run(p.name, func(t *testing.T) {
			m.t = t
			before := m.traces()
			m.use(p, "single-machine.yaml")
			m.refused(before)
			m.set(nil)
			begun := time.Now()
			m.must("up", "-d")
			t.Logf("up -d: %s", time.Since(begun))
			m.shoal("service", "create", "--name", "web", "--replicas", "3", "--publish", fmt.Sprintf("%d:8000", published), image)
			m.answers(30 * time.Second)
			t.Logf("from nothing to a service of 3 that answers, its check of 1 s included: %s", time.Since(begun))
			t.Logf("all are healthy after another %s", m.healthy(time.Minute, all()...))
			m.hardened()
			m.noToken()
			m.sees()
			started := m.users()
			if n := len(strings.Split(started, "\n")); n != 3 {
				t.Fatalf("%d user containers run, want 3:\n%s", n, started)
			}
			same := func(after string) {
				t.Helper()
				m.answers(30 * time.Second)
				if now := m.users(); now != started {
					t.Fatalf("%s changed user containers:\n%s\nbefore:\n%s", after, now, started)
				}
			}

			ids := m.on("docker ps -q | sort")
			m.must("up", "-d")
			if again := m.on("docker ps -q | sort"); again != ids {
				t.Errorf("a second up changed containers:\n%s\nbefore:\n%s", again, ids)
			}
			same("a second up")
			for _, service := range all() {
				m.must("restart", service)
				m.well(time.Minute, service)
				same("the restart of " + service)
			}
			m.must("restart")
			same("the restart of all")
			m.kill()
			t.Logf("all were killed; well again after %s", m.well(time.Minute, all()...))
			same("the death of all")
			reach := m.egress()
			if err := m.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.on(reach)
			m.well(time.Minute, all()...)
			same("the restart of dockerd")
			m.must("down")
			if now := m.users(); now != started {
				t.Errorf("down changed user containers:\n%s\nbefore:\n%s", now, started)
			}
			m.must("up", "-d")
			m.well(time.Minute, all()...)
			same("down and up")
			m.letsGo()
			m.remove()
			if now := m.traces(); now != before {
				t.Errorf("left:\n%s\nbefore:\n%s", now, before)
			}
		})
		if !ok {
			t.Fatal("the machine is as that left it: nothing can be told there of the other one")
		}
	}
}

func registryImage(t *testing.T, m *machine) string {
	t.Helper()
	registry, err := m.Lab().Registry()
	if err != nil {
		t.Fatal(err)
	}
	return registry + "/micro:1.0.0"
}

// hardened looks at what Docker was asked for: no privilege beyond the listed.
func (m *machine) hardened() {
	m.t.Helper()
	const form = `{{index .Config.Labels "com.docker.compose.service"}} user={{.Config.User}} ro={{.HostConfig.ReadonlyRootfs}} privileged={{.HostConfig.Privileged}} drop={{.HostConfig.CapDrop}} add={{.HostConfig.CapAdd}} pid={{.HostConfig.PidMode}} opts={{.HostConfig.SecurityOpt}}`
	// One version of compose writes CAP_NET_ADMIN, in order of the alphabet, the other what the file says.
	text := strings.ReplaceAll(m.on("docker inspect -f '"+form+"' $(docker ps -q)"), "CAP_", "")
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(line, " ")
		want := []string{" ro=true ", " privileged=false ", " drop=[ALL] ", " pid= ", "no-new-privileges=true"}
		added := ""
		switch name {
		case "agent":
			want[3] = " pid=host "
			added = "CHOWN DAC_OVERRIDE FOWNER FSETID NET_ADMIN SYS_ADMIN SYS_PTRACE"
		case "meshproxy":
			added = "NET_ADMIN NET_BIND_SERVICE"
		}
		node := added != ""
		_, add, _ := strings.Cut(line, " add=[")
		add, _, _ = strings.Cut(add, "]")
		if got := strings.Join(slices.Sorted(slices.Values(strings.Fields(add))), " "); got != added {
			m.t.Errorf("%s has the capabilities %q, want %q", name, got, added)
		}
		for _, w := range want {
			if !strings.Contains(line, w) {
				m.t.Errorf("%s: want%s", strings.TrimSpace(line), w)
			}
		}
		if mode := m.on("stat -c %a:%u:%g /var/lib/shoal/" + name); !node && !strings.Contains(line, "user="+strings.TrimPrefix(mode, "700:")+" ") {
			m.t.Errorf("%s: its folder is %s", strings.TrimSpace(line), mode)
		}
		if root := strings.Contains(line, "user=0:0 "); root != node {
			m.t.Errorf("%s: root is %t, want %t", strings.TrimSpace(line), root, node)
		}
	}
}

// refused: where a cluster cannot begin, up fails with a reason that a person finds, no process starts, and nothing of the
// try is left.
func (m *machine) refused(before string) {
	m.t.Helper()
	for _, c := range []struct {
		name, spoil, mend string
		settings          map[string]string
		why               string
	}{
		{
			name:  "a taken port",
			spoil: `python3 -m http.server --bind 0.0.0.0 2384 >/dev/null 2>&1 & echo $! >/root/port.pid; until curl -s -o /dev/null 127.0.0.1:2384; do :; done`,
			mend:  `kill "$(cat /root/port.pid)"; rm /root/port.pid`, why: "2384",
		},
		{name: "no address", spoil: "true", mend: "true", settings: map[string]string{"SHOAL_ADVERTISE": "0.0.0.0"}, why: "0.0.0.0"},
	} {
		m.set(c.settings)
		m.on(c.spoil)
		_, err := m.compose("up", "-d")
		said, logErr := m.compose("logs", "init")
		m.on(c.mend)
		if err == nil || logErr != nil || !strings.Contains(said, c.why) {
			m.t.Errorf("%s: up ended with %v; the log of init (%v) says\n%s", c.name, err, logErr, said)
		}
		if running := m.on("docker ps -q"); running != "" {
			m.t.Errorf("%s: these run nevertheless: %s", c.name, running)
		}
		m.must("down")
		m.on(`find /etc/shoal /var/lib/shoal -mindepth 1 -type d -empty -delete
rm -rf /root/.config/shoal && rmdir /run/shoal/mesh /run/shoal 2>/dev/null || true`) // folders that Docker made to mount them
		if now := m.traces(); now != before {
			m.t.Errorf("%s: left\n%s\nbefore:\n%s", c.name, now, before)
		}
	}
}

// sees: the agent finds its containers' control groups, where it looks whether one ran out of memory.
func (m *machine) sees() {
	m.t.Helper()
	m.on(`set -e
root=/proc/$(docker inspect -f '{{.State.Pid}}' "$(docker ps -q --filter label=com.docker.compose.service=agent)")/root
for id in $(ctr -n shoal task ls -q); do
	ls "$root/sys/fs/cgroup/memory/shoal/$id/memory.oom_control" 2>/dev/null || ls "$root/sys/fs/cgroup/shoal/$id/memory.events"
done`)
}

// kill ends every process of ours as a crash does. The containers' restart policy is what brings them back.
func (m *machine) kill() {
	m.t.Helper()
	m.on(`kill -9 $(docker inspect -f '{{.State.Pid}}' $(docker ps -q))`)
}

// letsGo: a container that ends takes its network along, also after all of ours were restarted: nobody's mounts hold it.
func (m *machine) letsGo() {
	m.t.Helper()
	m.shoal("service", "scale", "web=1")
	const left = `ls /run/shoal/netns | wc -l; ip -o link show | grep -c shoalv || true`
	for deadline := time.Now().Add(20 * time.Second); ; pause(m.t.Context(), 200*time.Millisecond) {
		text := m.on(left)
		if slices.Equal(strings.Fields(text), []string{"1", "1"}) {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("network namespaces and interfaces of 1 container: %q", text)
		}
	}
}

// egress: Docker closes what is forwarded, and the meshproxy has our networks pass. A Docker that finds forwarding on, as at each
// boot with the README's sysctl, closes nothing: what is returned must then succeed.
func (m *machine) egress() (reach string) {
	m.t.Helper()
	registry, err := m.Lab().Registry()
	if err != nil {
		m.t.Fatal(err)
	}
	host, port, _ := strings.Cut(registry, ":")
	reach = fmt.Sprintf(`nsenter --net=/run/shoal/netns/$(ls /run/shoal/netns | head -n 1) timeout 3 bash -c ': </dev/tcp/%s/%s'`, host, port)
	m.on("iptables -P FORWARD DROP") // as Docker does where it switches forwarding on: on this host the lab has
	m.until(15*time.Second, "a container reaches the outside past Docker's firewall", func() (not []string) {
		if _, err := m.Run(m.t.Context(), m.name, reach); err != nil {
			not = append(not, err.Error())
		}
		return not
	})
	m.on("iptables -P FORWARD ACCEPT")
	return reach
}

// remove is what the README says.
func (m *machine) remove() {
	m.t.Helper()
	m.must("down")
	m.must("run", "--rm", "-T", "leave")
	m.on(`set -e
rm -rf /run/shoal /root/.config/shoal
ctr -n shoal images ls -q | xargs -r ctr -n shoal images rm --sync`)
}

// traces is all that shoal could have left on the machine.
func (m *machine) traces() string {
	m.t.Helper()
	return m.on(`find /etc/shoal /var/lib/shoal -mindepth 1
ls -d /run/shoal /root/.config/shoal 2>/dev/null
ip -o link show | grep -o 'shoal[^@:]*'
nft list tables | grep shoal
grep -o '/run/shoal[^ ]*' /proc/self/mountinfo
ps -eo comm | grep '^shoal-' | grep -v '^shoal-lab'
ctr -n shoal containers ls -q
ctr -n shoal images ls -q
ctr -n shoal snapshots ls | tail -n +2
docker ps -aq
docker network ls --format '{{.Name}}'
docker volume ls -q
true`)
}
