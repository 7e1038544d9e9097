package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/harness"
)

// memberRow is a line of `shoal member ls --format json`.
type memberRow struct {
	ID, Name, Role, Hostname, Health, Raft string
	Drain                                  bool
}

// members are the control processes by role/hostname.
func (c *cluster) members() map[string]memberRow {
	c.t.Helper()
	out := map[string]memberRow{}
	for line := range strings.Lines(c.shoal("member", "ls", "--format", "json")) {
		var r memberRow
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			c.t.Fatalf("member ls printed %q: %v", line, err)
		}
		out[r.Role+"/"+r.Hostname] = r
	}
	return out
}

func (c *cluster) hasMember(name, health string) {
	c.t.Helper()
	until(c.t, name+" is "+health, 15*time.Second, func() string { return unless(c.members()[name].Health, health) })
}

// Processes come to a machine and go again, one by one, and the machine keeps the rest.
func TestRolesComeAndGo(t *testing.T) {
	c := bringWith(t, harness.Options{Managers: 2, Workers: 1, NoInit: true})
	c.on("m1", "shoal", "init", "--advertise-addr", c.address("m1"))
	join := func(host, kind string, args ...string) string {
		return c.on(host, append(append([]string{"shoal", "join"}, args...), "--token", c.shoal("join-token", kind, "-q"), c.address("m1"))...)
	}
	roles := func(host string) string {
		return c.on(host, "sh", "-c", "cd /etc/shoal && echo * | sed 's/\\.yaml//g'")
	}
	c.tell([]step{
		{"a machine that only takes traffic", func(_ *testing.T, c *cluster) {
			join("m2", "worker", "--roles", "meshproxy")
			until(c.t, "m2 is ready", 10*time.Second, func() string { return unless(c.nodes()["m2"], "Ready") })
			if got := c.on("m2", "cat", "/etc/shoal/meshproxy.yaml"); !strings.Contains(got, "ingress: true") {
				c.t.Errorf("its meshproxy opens no session: %s", got)
			}
		}},
		{"gets an agent", func(_ *testing.T, c *cluster) {
			if said := join("m2", "worker", "--roles", "agent,meshproxy"); said != "This node got agent; it had meshproxy." {
				c.t.Errorf("join says %q", said)
			}
			until(c.t, "m2 is ready", 10*time.Second, func() string { return unless(c.nodes()["m2"], "Ready") })
		}},
		{"gets control processes and a store that does not vote", func(_ *testing.T, c *cluster) {
			for _, user := range []string{"shoal-store", "shoal-dispatcher"} {
				c.on("m2", "useradd", "--system", "--no-create-home", user)
			}
			join("m2", "manager", "--roles", "gateway,dispatcher")
			join("m2", "manager", "--roles", "store", "--learner")
			for _, name := range []string{"gateway/m2", "dispatcher/m2", "store/m2"} {
				c.hasMember(name, "Well")
			}
			if got := roles("m2"); got != "agent dispatcher gateway meshproxy store" {
				c.t.Errorf("m2 has %s", got)
			}
			if got := c.members()["store/m2"].Raft; got != "learner" {
				c.t.Errorf("the learner is a %s", got)
			}
			c.shoal("member", "promote", "store/m2")
			until(c.t, "it votes", 10*time.Second, func() string { return unless(c.members()["store/m2"].Raft, "voter") })
			c.shoal("member", "demote", "store/m2")
			until(c.t, "it does not", 10*time.Second, func() string { return unless(c.members()["store/m2"].Raft, "learner") })
			owners := c.on("m2", "sh", "-c", "cd /var/lib/shoal && stat -c '%U:%G %a %n' store store/identity/key.pem dispatcher gateway /etc/shoal/store.yaml /etc/shoal/gateway.yaml")
			if want := "shoal-store:shoal-store 700 store\nshoal-store:shoal-store 600 store/identity/key.pem\nshoal-dispatcher:shoal-dispatcher 700 dispatcher\n" +
				"root:root 700 gateway\nroot:shoal-store 640 /etc/shoal/store.yaml\nroot:root 640 /etc/shoal/gateway.yaml"; owners != want {
				c.t.Errorf("owners are\n%s\nwant\n%s", owners, want)
			}
			if said := c.on("m2", "shoal", "doctor", "-q"); said != "" {
				c.t.Errorf("the doctor says %s", said)
			}
		}},
		{"gives them back", givesBack},
		{"and gets them again", func(_ *testing.T, c *cluster) {
			join("m2", "manager", "--roles", "gateway,dispatcher,store")
			for _, name := range []string{"gateway/m2", "dispatcher/m2", "store/m2"} {
				c.hasMember(name, "Well")
			}
		}},
		{"a new machine may begin paused", func(_ *testing.T, c *cluster) {
			join("w1", "worker", "--availability", "pause")
			if got := c.shoal("node", "inspect", "-f", "{{.Spec.Availability}}", "w1"); got != "pause" {
				c.t.Errorf("w1 is %s", got)
			}
		}},
	})
}

// givesBack: without a context the machine can't ask; with one, what is drained and removed leaves it file by file.
func givesBack(_ *testing.T, c *cluster) {
	c.refusedAt("m2", []string{"no operator's context"}, "shoal", "leave", "--roles", "gateway")
	c.refusedAt("m1", []string{"no other ca"}, "shoal", "leave", "--roles", "ca")
	c.copyContext("m1", "m2")
	c.refusedAt("m2", []string{"this machine has no ca"}, "shoal", "leave", "--roles", "ca,gateway")
	said := c.on("m2", "shoal", "leave", "--roles", "gateway,dispatcher,store")
	if said != "This node gave back store, dispatcher, gateway; it has meshproxy, agent." {
		c.t.Errorf("leave says %q", said)
	}
	for _, name := range []string{"gateway/m2", "dispatcher/m2", "store/m2"} {
		if _, there := c.members()[name]; there {
			c.t.Errorf("%s is still listed", name)
		}
	}
	left := c.on("m2", "sh", "-c", "ls /etc/shoal /var/lib/shoal; systemctl list-units | grep ' active ' | grep -o 'shoal-[a-z]*' | sort")
	if want := "/etc/shoal:\nagent.yaml\nmeshproxy.yaml\n\n/var/lib/shoal:\nagent\nmachine-id\nmeshproxy\nshoal-agent\nshoal-meshproxy"; left != want {
		c.t.Errorf("m2 has\n%s\nwant\n%s", left, want)
	}
	c.on("m2", "shoal", "leave", "--roles", "agent")
	until(c.t, "the mesh alone is ready", 15*time.Second, func() string { return unless(c.nodes()["m2"], "Ready") })
	c.on("m2", "shoal", "join", "--roles", "agent", "--token", c.shoal("join-token", "worker", "-q"), c.address("m1"))
	until(c.t, "m2 runs containers again", 15*time.Second, func() string { return unless(c.nodes()["m2"], "Ready") })
}

// copyContext gives a host the operator's context of another, as a person would.
func (c *cluster) copyContext(from, to string) {
	c.t.Helper()
	packed := c.on(from, "sh", "-c", "tar -C /root -czf - .config/shoal | base64 -w0")
	c.on(to, "sh", "-c", "echo "+packed+" | base64 -d | tar -C /root -xzf -")
}

// A machine whose identity and configuration are half gone is taken back nevertheless, containers and all, and becomes a new
// one.
func TestNodeResetTakesBackWhateverIsThere(t *testing.T) {
	c := bring(t, 1, 1)
	c.shoal("service", "create", "--name", "web", "-p", "30000:8000", "--replicas", "4", c.image("1.0.0"))
	c.converged("web", 4, 20*time.Second)
	c.on("w1", "rm", "-r", "/etc/shoal/agent.yaml", "/var/lib/shoal/agent/identity", "/var/lib/shoal/machine-id")
	c.refusedAt("w1", []string{"nothing was changed"}, "shoal", "node", "reset")
	said := c.on("w1", "shoal", "node", "reset", "--yes")
	for _, what := range []string{"unit shoal-agent", "containers and their networks", "interfaces, routes and rules", "/var/lib/shoal/meshproxy"} {
		if !strings.Contains(said, "removed "+what) {
			t.Errorf("it does not say that it removed %s: %s", what, said)
		}
	}
	until(t, "nothing of ours is left", 5*time.Second, func() string { return strings.Join(c.ours("w1"), "\n") })
	c.on("w1", "shoal", "join", "--token", c.shoal("join-token", "worker", "-q"), c.address("m1"))
	if said := c.on("w1", "shoal", "doctor", "-q"); said != "" {
		t.Errorf("the doctor says %s", said)
	}
}
