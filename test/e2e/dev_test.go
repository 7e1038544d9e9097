package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/harness"
)

// The promise of shoal-dev is that the service of the story answers 5 s after the start. It takes half of that on an idle
// machine; the bound leaves room for one that does other things, too.
const devAnswers = 15 * time.Second

// devLog is on the host.
const devLog = "/root/shoal-dev.log"

// dev is a shoal-dev that runs on a host.
type dev struct {
	c    *cluster
	host string
	pid  string
}

// startDev starts shoal-dev as a person does and returns when it has said that it is ready.
func (c *cluster) startDev(host string, flags ...string) *dev {
	c.t.Helper()
	command := "shoal-dev " + strings.Join(flags, " ") + " > " + devLog + " 2>&1 & echo $!"
	d := &dev{c: c, host: host, pid: c.on(host, "sh", "-c", command)}
	until(c.t, "shoal-dev is ready", 30*time.Second, func() string {
		log := c.on(host, "cat", devLog)
		if strings.Contains(log, "Ready after") {
			return ""
		}
		if !d.runs() {
			c.t.Fatalf("shoal-dev has ended:\n%s", log)
		}
		return "not ready; it has said: " + log
	})
	return d
}

func (d *dev) runs() bool {
	d.c.t.Helper()
	_, _, code := d.c.try(d.host, "kill", "-0", d.pid)
	return code == 0
}

// end sends a signal and waits until the process is gone.
func (d *dev) end(signal string) time.Duration {
	d.c.t.Helper()
	d.c.on(d.host, "kill", "-"+signal, d.pid)
	return until(d.c.t, "shoal-dev ends after SIG"+signal, 30*time.Second, func() string {
		if d.runs() {
			return "it has said: " + d.c.on(d.host, "cat", devLog)
		}
		return ""
	})
}

// answers waits until the published port answers on the host itself.
func (d *dev) answers(within time.Duration) {
	d.c.t.Helper()
	until(d.c.t, "the service answers on "+d.host, within, func() string {
		out, stderr, _ := d.c.try(d.host, "curl", "-sS", "--max-time", "2", "http://127.0.0.1:30000/")
		if strings.Contains(out, "hostname=") {
			return ""
		}
		return "no answer: " + out + stderr
	})
}

// devStarts lists the running containers of shoal-dev, each with the start of its process.
func (c *cluster) devStarts(host string) string {
	c.t.Helper()
	const script = `ctr -n shoal-dev task ls | awk 'NR > 1 { print $1, $2 }' | sort |
		while read -r id pid; do echo "$id@$(cut -d' ' -f22 "/proc/$pid/stat")"; done`
	return strings.Join(strings.Fields(c.on(host, "sh", "-c", script)), " ")
}

// devLeft lists what a shoal-dev that has ended has no business to leave on a machine.
func (c *cluster) devLeft(host string) []string {
	c.t.Helper()
	var left []string
	for _, name := range c.links(host) {
		left = append(left, "interface "+name)
	}
	for _, probe := range []struct{ what, command string }{
		{"container", "ctr -n shoal-dev containers ls -q"},
		{"running container", "ctr -n shoal-dev task ls -q"},
		{"writable snapshot", "ctr -n shoal-dev snapshots ls | grep Active"},
		{"lease", "ctr -n shoal-dev leases ls -q"},
		{"mount", "grep -E 'shoal-dev' /proc/self/mountinfo"},
		{"folder", "ls -d /run/shoal-dev"},
		{"control group", "find /sys/fs/cgroup -maxdepth 4 -type d -path '*shoal*'"},
		{"shim", "ps ax | grep -v grep | grep 'containerd-shim.*-namespace shoal-dev'"},
		{"process", "ps ax | grep -v grep | grep 'shoal-dev'"},
		{"table", "nft list tables | grep shoal"},
		{"route", "ip route show table all | grep -E 'shoal|proto 83'"},
		{"listener", "ss -Hltun | grep -E ':(23[78][0-9]|30000) '"},
	} {
		out, _, _ := c.try(host, "sh", "-c", probe.command)
		for _, line := range lines(out) {
			left = append(left, probe.what+" "+line)
		}
	}
	return left
}

// shoal-dev is a cluster in one process: it answers at once, takes workers, survives a kill, hands its containers on when
// told to, and takes everything with it when not.
func TestShoalDev(t *testing.T) {
	c := bringWith(t, harness.Options{Managers: 1, Workers: 1, NoInit: true})
	c.tell([]step{
		{"refusals tell all at once", devRefuses},
		{"one command, and the service answers", devStory},
		{"Ctrl-C leaves nothing", devStops},
		{"the same cluster comes back, at another address, and a worker joins it", devJoined},
		{"what it does not share with others", devAlone},
		{"SIGKILL and --keep touch no container", devKept},
		{"a process that fails ends all, and says why", devFails},
		{"reset removes all", devReset},
	})
}

func devRefuses(t *testing.T, c *cluster) {
	_, stderr, code := c.try("m1", "shoal-dev", "--data", "/", "--log-format", "xml", "--advertise-addr", "here")
	if code != 2 || !strings.Contains(stderr, "3 faults") {
		t.Errorf("wrong flags: exit code %d, says %q; want 2 and all three faults", code, stderr)
	}
	_, stderr, code = c.try("m1", "shoal-dev", "--containerd", "/run/nobody.sock", "--advertise-addr", "203.0.113.9")
	for _, want := range []string{"2 faults", "/run/nobody.sock", "203.0.113.9 is not an address of this machine"} {
		if code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("a machine that lacks two things: exit code %d, says %q; want 1 and %q", code, stderr, want)
		}
	}
	if left := append(c.devLeft("m1"), lines(c.on("m1", "sh", "-c", "ls -A /root"))...); len(left) > 0 {
		t.Errorf("a refusal has left: %s", strings.Join(left, "\n"))
	}
}

func devStory(t *testing.T, c *cluster) {
	began := time.Now()
	d := c.startDev("m1")
	ready := time.Since(began)
	c.shoal("service", "create", "--name", "micro", "-p", "8000", "--replicas", "2", c.image("1.0.0"))
	d.answers(devAnswers)
	took := time.Since(began)
	t.Logf("shoal-dev was ready after %s; the service answered %s after the start", ready.Round(time.Millisecond), took.Round(time.Millisecond))
	if took > devAnswers {
		t.Errorf("the service answered after %s, want %s", took, devAnswers)
	}
	if out := c.on("m1", "ss", "-Hltn"); strings.Contains(out, "0.0.0.0:23") || strings.Contains(out, c.address("m1")+":23") {
		t.Errorf("without --advertise-addr it listens beyond the loopback:\n%s", out)
	}
	_, stderr, code := c.try("m1", "shoal-dev", "--data", "/root/second")
	if code != 1 || !strings.Contains(stderr, "another shoal-dev runs on this machine (process "+d.pid) {
		t.Errorf("a second one: exit code %d, says %q; want 1 and who runs", code, stderr)
	}
}

// devPID is the one shoal-dev that runs on the host.
func (c *cluster) devPID(host string) *dev {
	c.t.Helper()
	return &dev{c: c, host: host, pid: c.on(host, "pgrep", "-o", "-x", "shoal-dev")} // the oldest: its containers' loggers may be the same program
}

func devStops(t *testing.T, c *cluster) {
	took := c.devPID("m1").end("INT")
	t.Logf("Ctrl-C: ended after %s", took.Round(time.Millisecond))
	if left := c.devLeft("m1"); len(left) > 0 {
		t.Errorf("left on the machine:\n%s", strings.Join(left, "\n"))
	}
	c.refused([]string{"no cluster is known"}, "node", "ls")
}

func devJoined(t *testing.T, c *cluster) {
	began := time.Now()
	d := c.startDev("m1", "--advertise-addr", c.address("m1"))
	d.answers(30 * time.Second)
	t.Logf("the service answered %s after the start again", time.Since(began).Round(time.Millisecond))
	join := ""
	for _, line := range lines(c.on("m1", "cat", devLog)) {
		if strings.Contains(line, "shoal join --token") {
			join = strings.TrimSpace(line)
		}
	}
	c.on("w1", "sh", "-c", join)
	until(t, "w1 is ready", 15*time.Second, func() string { return unless(c.nodes()["w1"], "Ready") })
	c.shoal("service", "scale", "micro=4")
	c.converged("micro", 4, 30*time.Second)
	if by := c.spread("micro"); by["w1"] != 2 {
		t.Errorf("spread %v, want 2 on w1", by)
	}
	settle(t, c, 30000, 4)
}

func devAlone(t *testing.T, c *cluster) {
	_, stderr, code := c.try("w1", "shoal-dev")
	if code != 1 || !strings.Contains(stderr, "this machine is in a cluster already") {
		t.Errorf("beside a shoal of packages: exit code %d, says %q; want 1 and why", code, stderr)
	}
	c.on("w1", "shoal", "leave")
	c.forget("w1")
	c.shoal("service", "scale", "micro=2")
	c.converged("micro", 2, 30*time.Second)
}

func devKept(t *testing.T, c *cluster) {
	before := c.devStarts("m1")
	if len(strings.Fields(before)) != 2 {
		t.Fatalf("containers %q, want two", before)
	}
	same := func(when string) {
		t.Helper()
		if after := c.devStarts("m1"); after != before {
			t.Errorf("%s: containers %s, were %s", when, after, before)
		}
	}
	c.devPID("m1").end("KILL")
	same("after SIGKILL")
	_, stderr, code := c.try("m1", "shoal-dev", "--data", "/root/second")
	if code != 1 || !strings.Contains(stderr, "has left containers on this machine") {
		t.Errorf("another cluster over what is left: exit code %d, says %q; want 1 and whose it is", code, stderr)
	}
	d := c.startDev("m1", "--advertise-addr", c.address("m1"), "--keep")
	c.converged("micro", 2, 30*time.Second)
	same("started again after SIGKILL")
	d.end("INT")
	same("ended with --keep")
	d = c.startDev("m1", "--advertise-addr", c.address("m1"))
	c.converged("micro", 2, 30*time.Second)
	same("started again after --keep")
	d.answers(5 * time.Second)
	d.end("TERM")
}

func devFails(t *testing.T, c *cluster) {
	const certificate = "/root/.local/share/shoal-dev/var/lib/shoal/store/identity/cert.pem"
	c.on("m1", "mv", certificate, certificate+".away")
	_, stderr, code := c.try("m1", "shoal-dev", "--log-format", "json")
	if last := lastLine(stderr); code != 1 || !strings.HasPrefix(last, "shoal-dev: store: ") || !strings.Contains(last, certificate) {
		t.Errorf("without the store's certificate: exit code %d, says %q; want 1, the process and the file", code, last)
	}
	if left := c.devLeft("m1"); len(left) > 0 {
		t.Errorf("left on the machine:\n%s", strings.Join(left, "\n"))
	}
	c.on("m1", "mv", certificate+".away", certificate)
}

func devReset(t *testing.T, c *cluster) {
	if out := c.on("m1", "shoal-dev", "reset"); !strings.Contains(out, "is gone") {
		t.Errorf("reset says %q", out)
	}
	left := append(c.devLeft("m1"), lines(c.on("m1", "sh", "-c", "find /root -name 'shoal-dev' -o -name '*.pem'"))...)
	if len(left) > 0 {
		t.Errorf("reset has left:\n%s", strings.Join(left, "\n"))
	}
}
