package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/harness"
)

// joinLimit bounds a join that is to be refused: nobody waits for minutes to hear that an address is wrong.
const joinLimit = 20 * time.Second

// A join that is refused, whatever for, leaves the machine as bare as it was and the cluster without it. The same machine
// then joins properly, once.
func TestRefusedJoinLeavesNoTrace(t *testing.T) {
	c := bringWith(t, harness.Options{Managers: 1, Workers: 1, NoInit: true})
	c.on("m1", "shoal", "init", "--advertise-addr", c.address("m1"))
	old := c.shoal("join-token", "worker", "-q")
	c.shoal("join-token", "--rotate", "worker")
	token := c.shoal("join-token", "worker", "-q")
	parts := strings.Split(token, "-") // SHOAL, 1, digest of the root, secret
	otherRoot := strings.Join([]string{parts[0], parts[1], swapped(parts[2]), parts[3]}, "-")
	manager := c.address("m1") + ":2377"
	nobody := c.address("m1")[:strings.LastIndex(c.address("m1"), ".")] + ".250"
	for _, refusal := range []struct{ name, token, address, says string }{
		{"secret is wrong", strings.Join([]string{parts[0], parts[1], parts[2], swapped(parts[3])}, "-"), manager, "token"},
		{"token was rotated away", old, manager, "token"},
		{"token is of another cluster", otherRoot, manager, "token"},
		{"token is cut short", token[:len(token)-5], manager, "token"},
		{"token is of Docker Swarm", "SWMTKN-1-" + parts[2] + "-" + parts[3], manager, "Docker Swarm's"},
		{"token is empty", "", manager, "token"},
		{"nothing listens there", token, c.address("w1") + ":2377", "refused"},
		{"nobody has the address", token, nobody + ":2377", nobody},
		{"another process listens there", token, c.address("m1") + ":2381", "is no CA"},
		{"address has no number", token, manager + "x", "2377x"},
	} {
		t.Run(refusal.name, func(t *testing.T) {
			c := c.with(t)
			began := time.Now()
			stdout, stderr, code := c.try("w1", "shoal", "join", "--token", refusal.token, refusal.address)
			took := time.Since(began)
			if code != 1 || !strings.Contains(stderr, refusal.says) {
				t.Errorf("exit code %d, says %q%q; want 1 and a text with %q", code, stdout, stderr, refusal.says)
			}
			if took > joinLimit {
				t.Errorf("refused after %s", took)
			}
			if strings.Contains(stderr, parts[3]) {
				t.Error("the message shows the token's secret")
			}
			t.Logf("after %s: %s", took.Round(10*time.Millisecond), lastLine(stderr))
			c.bare("w1")
		})
	}
	t.Run("its processes do not start", func(t *testing.T) {
		c := c.with(t)
		c.on("w1", "sh", "-c", "echo 'metrics_listen: 127.0.0.1:9999' > /etc/shoal/agent.yaml")
		defer c.on("w1", "kill", c.listener("w1", "127.0.0.1:9999"))
		_, stderr, code := c.try("w1", "shoal", "join", "--token", token, manager)
		if code != 1 || !strings.Contains(stderr, "9999") {
			t.Errorf("exit code %d, says %q; want 1 and the port that is at fault", code, stderr)
		}
		t.Logf("%s", stderr)
		// The CA has certified the machine by then, so certificates stay for the second try; nothing that runs does.
		for _, what := range c.ours("w1") {
			if !strings.HasPrefix(what, "certificate") && !strings.HasPrefix(what, "process folder") && what != "configuration agent.yaml" {
				t.Errorf("on w1 is left: %s", what)
			}
		}
		if got := c.on("w1", "cat", "/etc/shoal/agent.yaml"); got != "metrics_listen: 127.0.0.1:9999" {
			t.Errorf("the person's own file was changed to %q", got)
		}
		c.on("w1", "rm", "/etc/shoal/agent.yaml")
	})
	c.on("w1", "shoal", "join", "--token", token, manager)
	until(t, "w1 is ready", 10*time.Second, func() string { return unless(c.nodes()["w1"], "Ready") })
	joinedOnce(c, token, manager)
}

// joinedOnce: a worker's token made a worker of the machine and no more, and joining again changes nothing.
func joinedOnce(c *cluster, token, manager string) {
	c.t.Helper()
	if got := c.on("w1", "sh", "-c", "cd /etc/shoal && echo *"); got != "agent.yaml meshproxy.yaml" {
		c.t.Errorf("a worker's token configured %s, want agent and meshproxy alone", got)
	}
	if got := c.on("w1", "sh", "-c", "cd /var/lib/shoal && echo */identity/cert.pem"); got != "agent/identity/cert.pem meshproxy/identity/cert.pem" {
		c.t.Errorf("a worker's token yielded %s, want certificates of agent and meshproxy alone", got)
	}
	before := c.on("w1", "sh", "-c", "sha256sum /etc/shoal/* /var/lib/shoal/*/identity/*")
	_, stderr, code := c.try("w1", "shoal", "join", "--token", token, manager)
	if code != 1 || !strings.Contains(stderr, "already part of a cluster") {
		c.t.Errorf("a second join: exit code %d, says %q; want 1 and `already part of a cluster`", code, stderr)
	}
	if after := c.on("w1", "sh", "-c", "sha256sum /etc/shoal/* /var/lib/shoal/*/identity/*"); after != before {
		c.t.Errorf("a second join changed files:\n%s\nwere\n%s", after, before)
	}
	if got := c.nodes(); len(got) != 2 || got["w1"] != "Ready" {
		c.t.Errorf("nodes after a second join: %v", got)
	}
}

// A machine that loses its power in the middle of joining joins when it is told to again, and there is one of it.
func TestJoinSurvivesPowerLoss(t *testing.T) {
	c := bringWith(t, harness.Options{Managers: 1, Workers: 1, NoInit: true})
	c.on("m1", "shoal", "init", "--advertise-addr", c.address("m1"))
	token := c.shoal("join-token", "worker", "-q")
	for _, after := range []int{50, 150, 300, 450, 700} {
		c.cutJoin(token, time.Duration(after)*time.Millisecond)
		// It may have been far enough to go on by itself: then joining again is refused, and the machine is in.
		_, stderr, code := c.try("w1", "shoal", "join", "--token", token, c.address("m1")+":2377")
		if code != 0 && !strings.Contains(stderr, "already part of a cluster") {
			t.Errorf("joining again after a power loss: exit code %d, says %q", code, stderr)
		}
		until(t, "w1 is ready", 15*time.Second, func() string { return unless(c.nodes()["w1"], "Ready") })
		for _, unit := range []string{"shoal-agent", "shoal-meshproxy"} {
			if _, _, code := c.try("w1", "systemctl", "is-active", unit); code != 0 {
				t.Errorf("power cut after %d ms, joined again: %s is not active", after, unit)
			}
		}
		if got := c.shoal("node", "ls", "-q"); len(lines(got)) != 2 {
			t.Errorf("nodes: %q, want two", got)
		}
		t.Logf("power cut after %d ms, joined again: exit code %d, %s", after, code, lastLine(stderr))
		c.on("w1", "shoal", "leave")
		c.shoal("node", "rm", "--force", "w1")
	}
}

// cutJoin begins a join and switches the machine off and on again.
func (c *cluster) cutJoin(token string, after time.Duration) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		_, _, _, _ = c.lab.Exec(ctx, "w1", "shoal", "join", "--token", token, c.address("m1")+":2377")
	}()
	<-time.After(after)
	c.must(c.lab.PowerOff(c.t.Context(), "w1"))
	cancel()
	<-cut
	c.must(c.lab.PowerOn(c.t.Context(), "w1"))
}

// bare requires a machine on which nothing of a cluster is, and a cluster that does not list it.
func (c *cluster) bare(host string) {
	c.t.Helper()
	if left := c.ours(host); len(left) > 0 {
		// A key is not a membership, and a second try proves itself with it; a certificate would be one.
		for _, what := range left {
			if !strings.HasSuffix(what, "/key.pem.next") && !strings.HasPrefix(what, "process folder ") {
				c.t.Errorf("on %s is left: %s", host, what)
			}
		}
	}
	if _, there := c.nodes()[host]; there {
		c.t.Errorf("%s is listed", host)
	}
}

// swapped is a text of the same alphabet and length that differs.
func swapped(text string) string {
	first := byte('a')
	if text[len(text)/2] == first {
		first = 'b'
	}
	return text[:len(text)/2] + string(first) + text[len(text)/2+1:]
}

func lastLine(text string) string {
	all := lines(text)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1]
}

// unless is empty if a value is the wanted one, else the value.
func unless(got, want string) string {
	if got == want {
		return ""
	}
	return "it is " + got + ", want " + want
}
