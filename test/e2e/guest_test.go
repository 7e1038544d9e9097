package e2e

import (
	"strings"
	"time"
)

// guest puts a namespace that shoal has not made on a network: it is reached there and asks for names, is on no other, survives what
// keeps it, and its address is free when it has gone. Host is one of the machines that web runs on.
func (c *cluster) guest(web, db []box) {
	c.t.Helper()
	const host, path = "w1", "/run/netns/blue"
	c.on(host, "ip", "netns", "add", "blue")
	attach := []string{"network", "attach", "--node", host}
	c.refused([]string{"shoal cluster update --allow-host-namespaces"}, append(attach, "front", path)...)
	c.shoal("cluster", "update", "--allow-host-namespaces")
	c.refused([]string{`network "back" takes no containers of other tools`}, append(attach, "back", path)...)
	c.refused([]string{"there is no network namespace /run/netns/nobody"}, append(attach, "front", "/run/netns/nobody")...)
	c.refused([]string{"is the machine's own network"}, append(attach, "--name", "self", "front", "/proc/1/ns/net")...)
	if left := c.shoal("network", "attachments", "-q"); left != "" {
		c.t.Errorf("left of what was refused: %s", left)
	}
	address, _, _ := strings.Cut(c.shoal(append(attach, "front", path)...), "/")
	inside := func(script string) bool {
		_, _, code := c.try(host, "nsenter", "--net="+path, "unshare", "-m", "bash", "-ec", script)
		return code == 0
	}
	named := `r=$(mktemp); trap 'umount /etc/resolv.conf; rm $r' EXIT; echo nameserver 169.254.53.53 >$r; mount --bind $r /etc/resolv.conf; curl -sS --max-time 2 http://web:8000/ >/dev/null`
	works := func() string {
		for _, from := range web {
			// Nothing listens in it: that it says so is an answer.
			if _, stderr, _ := c.inside(from, "timeout", "1", "bash", "-c", "exec 3<>/dev/tcp/"+address+"/9"); !strings.Contains(stderr, "refused") {
				return "not reached from a container on " + from.host
			}
			if !inside("curl -sS --max-time 2 http://" + from.network + ":8000/ >/dev/null") {
				return "does not reach the container on " + from.host
			}
		}
		if !inside(named) {
			return "does not reach web by its name"
		}
		return ""
	}
	until(c.t, "it is on the network", 15*time.Second, works)
	for _, to := range []string{db[0].network, db[0].machine, web[1].machine} {
		if inside("curl -sS --max-time 1 http://" + to + ":8000/ >/dev/null") {
			c.t.Errorf("it reaches %s, on another network", to)
		}
	}
	for _, process := range []string{"shoal-agent", "shoal-meshproxy"} {
		c.must(c.lab.Kill(c.t.Context(), host, process))
	}
	until(c.t, "it is on the network after agent and meshproxy were killed", 20*time.Second, works)
	seen := func() string {
		return c.shoal("network", "inspect", "-f", "{{range .Guests}}{{.Name}} {{.Node}} {{.State}} {{.Addresses}}{{end}}", "front")
	}
	if got := seen(); !strings.HasPrefix(got, "blue w1 running ["+address+"/") {
		c.t.Errorf("network inspect shows %q", got)
	}
	c.on(host, "ip", "netns", "del", "blue")
	until(c.t, "its address is free when it has gone", 15*time.Second, func() string {
		if got := seen(); got != "blue w1 complete []" {
			return got
		}
		return ""
	})
	c.shoal("network", "detach", "front", "blue")
	if got := seen(); got != "" {
		c.t.Errorf("network inspect shows %q", got)
	}
	c.containerGuest(host, web, address)
}

// containerGuest puts a container that containerd runs for somebody else on the network, by the beginning of its id. It gets another
// address than the guest before: what was given back rests.
func (c *cluster) containerGuest(host string, web []box, resting string) {
	c.t.Helper()
	const id = "anothers-4711"
	theirs := func(args ...string) { c.on(host, append([]string{"ctr", "-n", "theirs"}, args...)...) }
	theirs("images", "pull", "--hosts-dir", "/etc/containerd/certs.d", c.image("1.0.0"))
	theirs("run", "--detach", "--null-io", c.image("1.0.0"), id)
	address, _, _ := strings.Cut(c.shoal("network", "attach", "--node", host, "--name", "red", "front", id[:11]), "/")
	if address == resting {
		c.t.Errorf("%s was given back a moment ago, and is another's now", address)
	}
	until(c.t, "the container is on the network", 15*time.Second, func() string {
		for _, from := range web {
			if _, stderr, code := c.inside(from, "curl", "-sS", "-o", "/dev/null", "--max-time", "2", "http://"+address+":8000/"); code != 0 {
				return stderr
			}
		}
		return ""
	})
	c.shoal("network", "detach", "front", "red")
	if said := c.on(host, "ctr", "-n", "theirs", "tasks", "ls"); !strings.Contains(said, "RUNNING") {
		c.t.Errorf("detached, the container is %s", said)
	}
	theirs("tasks", "kill", "--signal", "SIGKILL", id)
	until(c.t, "the container has gone", 10*time.Second, func() string {
		_, said, _ := c.try(host, "ctr", "-n", "theirs", "containers", "rm", id)
		if left := c.on(host, "ctr", "-n", "theirs", "containers", "ls", "-q"); left != "" {
			return left + said
		}
		return ""
	})
}
