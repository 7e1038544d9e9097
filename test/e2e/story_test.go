package e2e

import (
	"encoding/json"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// The story: three bare machines become a cluster that runs, balances, scales and heals a service, and is taken apart
// again. Steps are numbered as in the tutorial; each stands on the one before.
func TestStory(t *testing.T) {
	c := bring(t, 1, 2) // steps 1 and 2: init, and the join line pasted on two machines
	c.tell([]step{
		{"02 join: three nodes are ready", threeNodes},
		{"03 network", makeNetwork},
		{"04 service", makeService},
		{"05 look", look},
		{"06 routing mesh", everyMachineAnswers},
		{"07 scale", scaleToSeven},
		{"08 a container dies", containerDies},
		{"08 logs and exec", logsAndExec},
		{"09 a machine dies", machineDies},
		{"13 trust", trust},
		{"14 leave", leave},
		{"14 nothing is left behind", nothingLeft},
	})
}

func (c *cluster) nodes() map[string]string {
	c.t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(c.shoal("node", "ls", "--format", "{{.Hostname}} {{.Status}}")) {
		name, status, _ := strings.Cut(strings.TrimSpace(line), " ")
		out[name] = status
	}
	return out
}

func threeNodes(t *testing.T, c *cluster) {
	until(t, "three nodes are ready", 10*time.Second, func() string {
		got := c.nodes()
		if len(got) != 3 || got["m1"] != "Ready" || got["w1"] != "Ready" || got["w2"] != "Ready" {
			return c.shoal("node", "ls")
		}
		return ""
	})
	header := strings.Fields(c.shoal("node", "ls"))
	for _, want := range []string{"ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER"} {
		if !slices.Contains(header, want) {
			t.Errorf("node ls has no column %s: %v", want, header[:8])
		}
	}
}

func makeNetwork(t *testing.T, c *cluster) {
	id := c.shoal("network", "create", "-d", "overlay", "micro-net")
	if len(id) != 25 {
		t.Errorf("network create printed %q, want an id of 25 characters", id)
	}
}

func makeService(t *testing.T, c *cluster) {
	stdout, stderr, code := c.try("m1", "shoal", "service", "create", "--name", "micro", "-p", "8000", "--replicas", "1",
		"--network", "micro-net", c.image("1.0.0"))
	if id := strings.TrimSpace(stdout); code != 0 || len(id) != 25 {
		t.Fatalf("service create: exit code %d, printed %q, want an id of 25 characters\n%s", code, id, stderr)
	}
	// Progress goes to stderr, so that a script gets the id alone.
	for _, want := range []string{"overall progress: 1 out of 1 tasks", "converged"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("service create did not show %q: %q", want, stderr)
		}
	}
}

func look(t *testing.T, c *cluster) {
	ls := c.shoal("service", "ls")
	for _, want := range []string{"1/1", "*:30000->8000/tcp"} {
		if !strings.Contains(ls, want) {
			t.Errorf("service ls does not show %s:\n%s", want, ls)
		}
	}
	if rows := c.tasks("micro", true); len(rows) != 1 || rows[0].Node == "" {
		t.Errorf("service ps: %+v, want one running task with its node", rows)
	}
	var inspected []struct {
		Endpoint struct {
			Ports []struct {
				Protocol, PublishMode     string
				TargetPort, PublishedPort int
			}
			VirtualIPs []struct{ NetworkID, Addr string }
		}
	}
	if err := json.Unmarshal([]byte(c.shoal("service", "inspect", "micro")), &inspected); err != nil {
		t.Fatal(err)
	}
	e := inspected[0].Endpoint
	if len(e.Ports) != 1 || e.Ports[0].Protocol != "tcp" || e.Ports[0].TargetPort != 8000 ||
		e.Ports[0].PublishedPort != 30000 || e.Ports[0].PublishMode != "ingress" {
		t.Errorf("Endpoint.Ports %+v, want [{tcp, 8000, 30000, ingress}]", e.Ports)
	}
	if len(e.VirtualIPs) == 0 {
		t.Error("no virtual address")
	}
}

func everyMachineAnswers(t *testing.T, c *cluster) {
	for _, host := range []string{"m1", "w1", "w2"} {
		if _, err := ask(t.Context(), published(c.address(host), 30000)); err != nil {
			t.Errorf("%s does not answer: %v", host, err)
		}
	}
	// The service sees the caller's address, not a machine's, by whichever machine the call came.
	for _, host := range []string{"m1", "w1", "w2"} {
		conn, err := net.Dial("tcp", published(c.address(host), 30000))
		c.must(err)
		own, _, err := net.SplitHostPort(conn.LocalAddr().String())
		c.must(err)
		_ = conn.Close() // it has told what it was for
		if a, err := ask(t.Context(), published(c.address(host), 30000)); err != nil || a.caller != own {
			t.Errorf("by %s the service saw %q, %v; want the caller's address %s", host, a.caller, err, own)
		}
	}
	// From the machine itself, by loopback, too.
	if out := c.on("m1", "curl", "-sS", "--max-time", "5", "http://127.0.0.1:30000/"); !strings.Contains(out, "hostname=") {
		t.Errorf("by loopback: %q", out)
	}
}

func scaleToSeven(t *testing.T, c *cluster) {
	first := c.tasks("micro", true)[0].ID
	c.shoal("service", "scale", "micro=7")
	c.converged("micro", 7, 30*time.Second)
	rows := c.tasks("micro", true)
	if !slices.ContainsFunc(rows, func(r taskRow) bool { return r.ID == first }) {
		t.Error("the first container was touched by scaling up")
	}
	counts := slices.Sorted(maps.Values(c.spread("micro")))
	if !slices.Equal(counts, []int{2, 2, 3}) {
		t.Errorf("spread %v, want 2 2 3", c.spread("micro"))
	}
	settle(t, c, 30000, 7)
	for host, n := range counted(t, published(c.address("w1"), 30000), 700) {
		if n < 90 || n > 110 {
			t.Errorf("%s answered %d of 700 requests, want 90 to 110", host, n)
		}
	}
}

// inspectedTask is what a test needs of `shoal task inspect`.
type inspectedTask struct {
	ID     string
	Status struct {
		State, Err, Message string
		ContainerStatus     struct {
			ContainerID string
			PID         int
			ExitCode    int
		}
	}
}

func (c *cluster) inspectTask(id string) inspectedTask {
	c.t.Helper()
	var out []inspectedTask
	if err := json.Unmarshal([]byte(c.shoal("task", "inspect", id)), &out); err != nil || len(out) != 1 {
		c.t.Fatalf("task inspect %s: %v", id, err)
	}
	return out[0]
}

func containerDies(t *testing.T, c *cluster) {
	rows := c.tasks("micro", true)
	i := slices.IndexFunc(rows, func(r taskRow) bool { return r.Node == "m1" })
	if i < 0 {
		t.Fatalf("no task on m1: %+v", rows)
	}
	victim := c.inspectTask(rows[i].ID)
	container := victim.Status.ContainerStatus.ContainerID
	if container == "" || victim.Status.ContainerStatus.PID == 0 {
		t.Fatalf("task inspect shows no container id and pid: %+v", victim)
	}
	c.on("m1", "ctr", "-n", "shoal", "task", "kill", "-s", "KILL", container)
	until(t, "service ls dips to 6/7", 10*time.Second, func() string {
		if got := c.shoal("service", "ls", "--format", "{{.Replicas}}"); got != "6/7" {
			return got
		}
		return ""
	})
	c.converged("micro", 7, 30*time.Second)
	dead := c.inspectTask(rows[i].ID)
	if dead.Status.ContainerStatus.ExitCode != 137 {
		t.Errorf("the dead task shows exit code %d, want 137: %+v", dead.Status.ContainerStatus.ExitCode, dead)
	}
	all := c.tasks("micro", false)
	j := slices.IndexFunc(all, func(r taskRow) bool { return r.ID == rows[i].ID })
	if j < 0 || !strings.Contains(all[j].Error, "137") {
		t.Errorf("service ps keeps no dead task with its exit code: %+v", all)
	}
}

func machineDies(t *testing.T, c *cluster) {
	c.must(c.lab.PowerOff(t.Context(), "w2"))
	took := until(t, "w2 is down", 15*time.Second, func() string {
		if got := c.nodes()["w2"]; got != "Down" {
			return got
		}
		return ""
	})
	full := until(t, "seven tasks run on the other machines", 20*time.Second, func() string {
		by := c.spread("micro")
		if by["w2"] != 0 || by["m1"]+by["w1"] != 7 {
			return c.shoal("service", "ps", "micro")
		}
		return ""
	})
	t.Logf("machine lost: down after %s, full strength %s later", took.Round(time.Millisecond), full.Round(time.Millisecond))
	c.converged("micro", 7, 10*time.Second)
	for host, address := range map[string]string{"m1": c.address("m1"), "w1": c.address("w1")} {
		if _, err := ask(t.Context(), published(address, 30000)); err != nil {
			t.Errorf("%s after the loss: %v", host, err)
		}
	}
	c.must(c.lab.PowerOn(t.Context(), "w2"))
	until(t, "w2 is back", 20*time.Second, func() string {
		if got := c.nodes()["w2"]; got != "Ready" {
			return got
		}
		return ""
	})
}

func trust(t *testing.T, c *cluster) {
	old := c.shoal("join-token", "worker", "-q")
	c.shoal("join-token", "--rotate", "worker")
	fresh := c.shoal("join-token", "worker", "-q")
	if old == fresh {
		t.Fatal("rotation did not change the token")
	}
	c.on("w2", "shoal", "leave")
	c.forget("w2")
	for token, why := range map[string]string{old: "rotated away", strings.Replace(fresh, "SHOAL-1-", "SHOAL-1-0", 1): "malformed"} {
		stdout, stderr, code := c.try("w2", "shoal", "join", "--token", token, c.address("m1")+":2377")
		if code != 1 {
			t.Errorf("a join with a token that is %s: exit code %d\n%s%s", why, code, stdout, stderr)
		}
	}
	if got := c.on("m1", "shoal", "node", "ls", "-q"); len(strings.Fields(got)) != 2 {
		t.Errorf("nodes after the refused joins: %q", got)
	}
	c.on("w2", "shoal", "join", "--token", fresh, c.address("m1")+":2377")
	threeNodes(t, c)
}

// forget removes a machine that has left from the cluster's list.
func (c *cluster) forget(host string) {
	c.t.Helper()
	until(c.t, host+" is down", 20*time.Second, func() string { return unless(c.nodes()[host], "Down") })
	c.shoal("node", "rm", host)
	if _, there := c.nodes()[host]; there {
		c.t.Errorf("%s is still listed", host)
	}
}

func leave(t *testing.T, c *cluster) {
	c.on("w1", "shoal", "leave")
	c.forget("w1")
	c.converged("micro", 7, 30*time.Second)
	c.shoal("service", "rm", "micro")
	for _, host := range []string{"m1", "w1", "w2"} {
		until(t, "no container on "+host, 30*time.Second, func() string { return c.on(host, "ctr", "-n", "shoal", "containers", "ls", "-q") })
	}
	until(t, "the network goes", 10*time.Second, func() string {
		_, stderr, _ := c.try("m1", "shoal", "network", "rm", "micro-net")
		if strings.Contains(c.shoal("network", "ls"), "micro-net") {
			return stderr
		}
		return ""
	})
	for _, host := range []string{"m1", "w1", "w2"} {
		until(t, "no interface of a task or network on "+host, 15*time.Second, func() string {
			var left []string
			for line := range strings.Lines(c.on(host, "ip", "-br", "link")) {
				name, _, _ := strings.Cut(line, "@")
				name = strings.Fields(name)[0]
				if strings.HasPrefix(name, "shoalv") || strings.HasPrefix(name, "shoalbr") {
					left = append(left, name)
				}
			}
			return strings.Join(left, " ")
		})
	}
}
