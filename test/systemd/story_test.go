package systemd

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// The main job on three real machines with nothing but packages: installed by apt, run by systemd, killed, switched off,
// rebooted, upgraded, purged. Steps are numbered as in the tutorial; each stands on the one before.
func TestStory(t *testing.T) {
	c := bring(t, "m1", "w1", "w2")
	c.tell([]step{
		{"01 install and init", installAndInit},
		{"02 join", join},
		{"03 network", makeNetwork},
		{"04 service", makeService},
		{"05 look", look},
		{"06 routing mesh", everyMachineAnswers},
		{"units run as their own users, hardened", hardened},
		{"reload, watchdog, journal", unitsAreTended},
		{"07 scale", scaleToSeven},
		{"overlay between the machines", overlay},
		{"idle memory", idleMemory},
		{"08 a container dies", containerDies},
		{"09 a machine dies", machineDies},
		{"reboot of each machine", reboots},
		{"upgrade under load", upgrade},
		{"purge", purge},
	})
}

// step is a part of a story, which stands on the parts before.
type step struct {
	name string
	f    func(*testing.T, *cluster)
}

// tell takes the steps up to the first that fails.
func (c *cluster) tell(steps []step) {
	c.t.Helper()
	for _, s := range steps {
		if !c.t.Run(s.name, func(t *testing.T) { s.f(t, c.with(t)) }) {
			c.t.Fatalf("the story ends at: %s", s.name)
		}
	}
}

// install is what the installation page has people type.
const install = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "

// installAndInit: two commands on a new machine, then a service answers.
func installAndInit(t *testing.T, c *cluster) {
	began := time.Now()
	c.on("m1", install+"shoal-manager")
	installed := time.Since(began)
	if out := c.on("m1", "systemctl list-units --all --no-legend 'shoal-*.service'; systemctl list-unit-files --state=enabled --no-legend 'shoal*' || true"); out != "" {
		t.Errorf("installing started or enabled something:\n%s", out)
	}
	said := c.on("m1", "shoal init --advertise-addr %s", c.Address("m1"))
	if !strings.Contains(said, "shoal join --token SHOAL-1-") {
		t.Errorf("init prints no join line: %s", said)
	}
	ready := time.Since(began)
	c.shoal("service create --quiet --name first -p 32000:8000 %s", c.image("1.0.0"))
	c.until("the first service answers", 30*time.Second, func() string {
		if _, err := c.askPort(t.Context(), "m1", 32000); err != nil {
			return err.Error()
		}
		return ""
	})
	answers := time.Since(began)
	t.Logf("from apt-get install: installed after %s, cluster of one ready after %s, first service answers after %s",
		installed.Round(time.Millisecond), ready.Round(time.Millisecond), answers.Round(time.Millisecond))
	if answers > 30*time.Second {
		t.Errorf("from apt-get install to the first answer took %s, aim 30 s", answers)
	}
	c.shoal("service rm first")
}

func (c *cluster) image(tag string) string {
	c.t.Helper()
	image, err := c.Image(tag)
	c.must(err)
	return image
}

func join(t *testing.T, c *cluster) {
	token := c.shoal("join-token worker -q")
	for _, name := range []string{"w1", "w2"} {
		began := time.Now()
		c.on(name, install+"shoal-node && shoal join --token %s %s:2377", token, c.Address("m1"))
		t.Logf("%s: installed and joined after %s", name, time.Since(began).Round(time.Millisecond))
	}
	c.ready(10 * time.Second)
	for name, want := range map[string]int{"m1": 7, "w1": 2, "w2": 2} {
		if got := c.on(name, "systemctl list-units --no-legend --state=active 'shoal-*.service' | wc -l"); got != fmt.Sprint(want) {
			t.Errorf("%s: %s units of ours are active, want %d", name, got, want)
		}
	}
}

func makeNetwork(t *testing.T, c *cluster) {
	if id := c.shoal("network create -d overlay micro-net"); len(id) != 25 {
		t.Errorf("network create printed %q, want an id of 25 characters", id)
	}
}

func makeService(_ *testing.T, c *cluster) {
	c.shoal("service create --quiet --name micro -p 8000 --replicas 1 --network micro-net %s", c.image("1.0.0"))
}

func look(t *testing.T, c *cluster) {
	ls := c.shoal("service ls")
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
			Ports      []struct{ TargetPort, PublishedPort int }
			VirtualIPs []struct{ Addr string }
		}
	}
	if err := json.Unmarshal([]byte(c.shoal("service inspect micro")), &inspected); err != nil {
		t.Fatal(err)
	}
	if e := inspected[0].Endpoint; len(e.Ports) != 1 || e.Ports[0].TargetPort != 8000 || e.Ports[0].PublishedPort != 30000 {
		t.Errorf("Endpoint.Ports %+v, want 30000 to 8000", e.Ports)
	}
}

func everyMachineAnswers(t *testing.T, c *cluster) {
	for _, name := range c.Names() {
		if _, err := c.ask(t.Context(), name); err != nil {
			t.Errorf("%s does not answer: %v", name, err)
		}
	}
	if out := c.on("w1", "curl -sS --max-time 5 http://127.0.0.1:30000/"); !strings.Contains(out, "hostname=") {
		t.Errorf("by loopback: %q", out)
	}
}

func scaleToSeven(t *testing.T, c *cluster) {
	first := c.tasks("micro", true)[0].ID
	c.shoal("service scale micro=7")
	took := c.converged("micro", 7, 30*time.Second)
	t.Logf("7/7 after %s", took.Round(time.Millisecond))
	if !slices.ContainsFunc(c.tasks("micro", true), func(r taskRow) bool { return r.ID == first }) {
		t.Error("the first container was touched by scaling up")
	}
	if counts := slices.Sorted(maps.Values(c.spread("micro"))); !slices.Equal(counts, []int{2, 2, 3}) {
		t.Errorf("spread %v, want 2 2 3", c.spread("micro"))
	}
	c.answeredByAll(7)
}

// overlay: one container on each machine pings and asks one on each other machine, by its address in the network.
func overlay(t *testing.T, c *cluster) {
	type box struct{ host, pid, address string }
	boxes := map[string]box{}
	for _, row := range c.tasks("micro", true) {
		pid := fmt.Sprint(c.container(row.ID).Status.ContainerStatus.PID)
		address := c.on(row.Node, "nsenter -n -t %s ip -4 -br address show dev eth1 | awk '{ sub(\"/.*\", \"\", $3); print $3 }'", pid)
		boxes[row.Node] = box{row.Node, pid, address}
	}
	if len(boxes) != 3 {
		t.Fatalf("containers on %d machines, want 3", len(boxes))
	}
	for _, from := range boxes {
		for _, to := range boxes {
			out := c.on(from.host, "nsenter -n -t %[1]s ping -c1 -W2 -q %[2]s && nsenter -n -t %[1]s curl -sS --max-time 3 http://%[2]s:8000/", from.pid, to.address)
			if !strings.Contains(out, "hostname=") {
				t.Errorf("from %s to %s by %s: %s", from.host, to.host, to.address, out)
			}
		}
	}
}

func containerDies(t *testing.T, c *cluster) {
	rows := c.tasks("micro", true)
	i := slices.IndexFunc(rows, func(r taskRow) bool { return r.Node == "m1" })
	if i < 0 {
		t.Fatalf("no task on m1: %+v", rows)
	}
	c.on("m1", "ctr -n shoal task kill -s KILL %s", c.container(rows[i].ID).Status.ContainerStatus.ContainerID)
	c.until("the task is dead", 10*time.Second, func() string {
		if got := c.container(rows[i].ID).Status.ContainerStatus.ExitCode; got != 137 {
			return fmt.Sprintf("exit code %d, want 137", got)
		}
		return ""
	})
	t.Logf("7/7 again after %s", c.converged("micro", 7, 30*time.Second).Round(time.Millisecond))
}

func machineDies(t *testing.T, c *cluster) {
	c.must(c.PowerOff(t.Context(), "w2"))
	down := c.until("w2 is down", 15*time.Second, func() string {
		if got := c.nodes()["w2"]; got != "Down" {
			return got
		}
		return ""
	})
	full := c.until("seven tasks run on the other machines", 20*time.Second, func() string {
		by := c.spread("micro")
		if by["w2"] != 0 || by["m1"]+by["w1"] != 7 {
			return fmt.Sprint(by)
		}
		return ""
	})
	t.Logf("machine lost: down after %s, full strength %s later", down.Round(time.Millisecond), full.Round(time.Millisecond))
	for _, name := range []string{"m1", "w1"} {
		if _, err := c.ask(t.Context(), name); err != nil {
			t.Errorf("%s after the loss: %v", name, err)
		}
	}
	c.must(c.PowerOn(t.Context(), "w2"))
	t.Logf("back and ready %s after its boot", c.ready(20*time.Second).Round(time.Millisecond))
}
