package compose_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The story on two machines: the second joins as a worker by worker.yaml, gets containers, a share of a network and single
// processes by role.yaml, loses its power, leaves, and comes back as a manager by manager.yaml.
func TestTwoMachines(t *testing.T) {
	_, machines := newLab(t, 2)
	first, second := machines[0], machines[1]
	v2, v1 := programs(t)[0], programs(t)[1]
	step := func(name string, tell func()) {
		t.Helper()
		begun := time.Now()
		tell()
		t.Logf("%s: %s", name, time.Since(begun).Round(time.Millisecond))
	}
	step("01 init", func() {
		first.use(v2, "single-machine.yaml")
		first.set(nil)
		first.must("up", "-d")
		first.well(time.Minute, all()...)
	})
	step("02 join", func() {
		second.use(v1, "worker.yaml")
		second.set(map[string]string{"SHOAL_MANAGER": first.address})
		second.refusesTokens(first.shoal("join-token", "worker", "--quiet"))
		second.must("up", "-d")
		second.well(time.Minute, "meshproxy", "agent")
		for _, m := range machines {
			m.noToken()
		}
		second.on("rm -r " + tokens) // the token is used once
		second.must("up", "-d")
	})
	step("03 a network", func() { first.shoal("network", "create", "--driver", "overlay", "front") })
	step("04 a service", func() {
		first.shoal("service", "create", "--name", "web", "--network", "front", "--publish", fmt.Sprintf("%d:8000", published), registryImage(t, first))
	})
	step("05 look", func() {
		if text := first.shoal("service", "ps", "web"); !strings.Contains(text, "Running") {
			t.Errorf("service ps says\n%s", text)
		}
	})
	step("06 routing mesh", func() {
		first.answers(30 * time.Second)
		second.answers(30 * time.Second)
	})
	step("07 scale", func() {
		first.shoal("service", "scale", "web=4")
		second.runs(2)
	})
	step("03 the network between machines", func() {
		for _, m := range machines {
			for _, to := range machines {
				m.reaches(to.overlayAddress())
			}
		}
	})
	step("08 a container dies", func() {
		second.on(`kill -9 "$(ctr -n shoal task ls | awk 'NR==2 {print $2}')"`)
		second.runs(1)
		second.runs(2)
	})
	step("09 a machine dies", func() {
		if err := second.PowerCycle(t.Context()); err != nil {
			t.Fatal(err)
		}
		second.well(time.Minute, "meshproxy", "agent")
		second.answers(time.Minute)
		first.answers(time.Minute)
	})
	step("single processes", func() {
		second.admit(first.shoal("join-token", "manager", "--quiet"))
		second.use(v2, "role.yaml")
		second.set(map[string]string{"SHOAL_MANAGER": first.address, "COMPOSE_PROFILES": "dispatcher,gateway"})
		second.must("up", "-d")
		second.well(time.Minute, "dispatcher", "gateway")
		second.noToken()
		members := first.shoal("member", "ls")
		for _, name := range []string{"dispatcher", "gateway"} {
			if !slices.ContainsFunc(strings.Split(members, "\n"), func(line string) bool {
				return strings.Contains(line, name+"/") && strings.Contains(line, second.name)
			}) {
				t.Errorf("no %s of %s in\n%s", name, second.name, members)
			}
		}
		if nodes := first.shoal("--gateway", second.address+":2384", "node", "ls"); !strings.Contains(nodes, second.name) {
			t.Errorf("its gateway says\n%s", nodes)
		}
	})
	step("14 leave", func() {
		second.must("down")
		second.use(v1, "worker.yaml")
		second.must("down")
		second.must("run", "--rm", "-T", "leave")
		if left := second.users(); left != "" {
			t.Errorf("the second machine has left, and still runs:\n%s", left)
		}
		first.answers(30 * time.Second)
	})
	step("02 join as a manager", func() {
		second.use(v1, "manager.yaml")
		second.set(map[string]string{"SHOAL_MANAGER": first.address})
		second.must("up", "-d") // with the token from before
		second.well(time.Minute, all()...)
		second.noToken()
		second.answers(30 * time.Second)
	})
}

// refusesTokens: without a token, and with one that others may read, up fails and the log says what to do. Then it is well.
func (m *machine) refusesTokens(token string) {
	m.t.Helper()
	refused := func(why string) {
		m.t.Helper()
		_, err := m.compose("up", "-d")
		said, logErr := m.compose("logs", "join")
		if err == nil || logErr != nil || !strings.Contains(said, why) {
			m.t.Errorf("up ended with %v; the log of join (%v) says\n%s\nwant %s", err, logErr, said, why)
		}
		m.must("down")
	}
	refused("there is no token in /run/join/token")
	m.admit(token)
	m.on("chmod 644 " + tokens + "/token")
	refused("its mode is 0644")
	m.on("chmod 600 " + tokens + "/token")
}

// runs waits until that many user containers run.
func (m *machine) runs(want int) {
	m.t.Helper()
	m.until(time.Minute, fmt.Sprintf("running %d", want), func() []string {
		lines := strings.Fields(m.users())
		if len(lines)/2 == want {
			return nil
		}
		return []string{fmt.Sprint(len(lines) / 2)}
	})
}

// overlayAddress is one that a container here has on its own network.
func (m *machine) overlayAddress() string {
	m.t.Helper()
	return m.on(`tail -n 1 /run/shoal/containers/$(ls /run/shoal/containers | head -n 1)/hosts | cut -f1`)
}

// reaches asks from inside the first container here.
func (m *machine) reaches(address string) {
	m.t.Helper()
	m.on(fmt.Sprintf(`nsenter --net=/run/shoal/netns/$(ls /run/shoal/netns | head -n 1) curl -fsS --max-time 5 --retry 3 --retry-connrefused 'http://%s/'`,
		hostPort(address)))
}

func hostPort(address string) string {
	if strings.Contains(address, ":") {
		return "[" + address + "]:8000"
	}
	return address + ":8000"
}
