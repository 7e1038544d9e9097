package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/state"
)

// What a person asks of a container arrives in it and stays, its health decides what it gets, and what it writes can be read,
// whatever becomes of it. The options one by one are the agent's own tests; here they take the whole way.
func TestContainersAsAsked(t *testing.T) {
	c := bring(t, 1, 1).watched("m1")
	c.atOnce([]step{
		{"38 options arrive and survive updates", optionsStay},
		{"37 files twice and of the asked shape", filesTwice},
		{"37 files are filled in", filledIn},
		{"33 probes by HTTP and TCP", probes},
		{"33 readiness is not liveness", readinessApart},
		{"38 users of their own", ownUsers},
		{"39 logs of all, of some and of one", logsOfAll},
		{"39 logs of a terminal", logsOfTerminal},
		{"39 logs of a container that is gone", logsOfGone},
	})
}

// beside runs a script on a task's machine; $1 is the id of the task's process there.
func (c *cluster) beside(s *state.Snapshot, id, script string) string {
	c.t.Helper()
	task := s.Task(id)
	return c.on(state.Hostname(s.Node(task.GetDecided().GetNodeId())), "sh", "-c", script, "sh", fmt.Sprint(task.GetObserved().GetPid()))
}

const lookInside = `p=/proc/$1
tr '\0' '\n' < $p/environ | grep -E '^(COLOUR|WHERE)='
nsenter -t $1 -u hostname
nsenter -t $1 -n cat /proc/sys/net/core/somaxconn
grep -E '^(Gid|Groups|CapEff):' $p/status | tr '\t' ' ' | sed 's/ *$//'
awk '$5 == "/" || $5 == "/scratch" || $5 == "/data" { split($6, o, ","); print $5, o[1] }' $p/mountinfo | sort
grep '^Max processes' $p/limits | tr -s ' ' | sed 's/ *$//'
cat $p/oom_score_adj
grep -hw db $p/root/etc/hosts | tr '\t' ' '
grep -o -e 'search .*' -e 'ndots:.' $p/root/etc/resolv.conf | sort
tr '\0' ' ' < $p/cmdline`

func optionsStay(t *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "rich", "--replicas", "2", "--env", "COLOUR=deep blue", "--env", "WHERE={{.Node.Hostname}}",
		"--hostname", "{{.Service.Name}}-{{.Task.Slot}}-{{.Node.Hostname}}", "--sysctl", "net.core.somaxconn=1234",
		"--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN", "--read-only", "--mount", "type=tmpfs,target=/scratch,tmpfs-size=1m",
		"--mount", "source=rich,target=/data", "--host", "db:10.1.2.3", "--dns", "9.9.9.9", "--dns-search", "example.org", "--dns-option", "ndots:2",
		"--stop-signal", "SIGQUIT", "--user", "0:1001", "--group", "4321", "--ulimit", "nproc=2000:3000", "--oom-score-adj", "300", c.image("1.0.0"))
	first := c.full("rich", 2)
	check := func(s *state.Snapshot) {
		for _, task := range runningOf(s, "rich") {
			host := state.Hostname(s.Node(task.GetDecided().GetNodeId()))
			want := fmt.Sprintf(`COLOUR=deep blue
WHERE=%s
rich-%d-%s
1234
Gid: 1001 1001 1001 1001
Groups: 1001 4321
CapEff: 00000000a80435fa
/ ro
/data rw
/scratch rw
Max processes 2000 3000 processes
300
10.1.2.3 db
ndots:2
search example.org
/micro`, host, task.GetDecided().GetSlot(), host)
			if got := c.beside(s, task.GetMeta().GetId(), lookInside); got != want {
				t.Errorf("inside %s there is\n%s\nwant\n%s", task.GetMeta().GetId(), got, want)
			}
		}
	}
	check(first)
	// What concerns no container touches none.
	c.shoal("service", "update", "--label-add", "tier=back", "--update-parallelism", "2", "--update-monitor", "100ms", "rich")
	c.kept(standing(first, "rich"), standing(c.full("rich", 2), "rich"))
	for _, args := range [][]string{{"--image", c.image("1.1.0")}, {"--env-add", "MORE=1"}, {"--limit-memory", "100m"}} {
		before := c.now()
		c.shoal(append(append([]string{"service", "update"}, args...), "rich")...)
		now := c.full("rich", 2)
		for id := range standing(before, "rich") {
			if _, still := standing(now, "rich")[id]; still {
				t.Errorf("after an update with %v %s is the same", args, id)
			}
		}
		check(now)
	}
	// The stop signal: Go's own answer to SIGQUIT is to end with 2.
	for id := range standing(first, "rich") {
		if got := c.inspectTask(id).Status.ContainerStatus.ExitCode; got != 2 {
			t.Errorf("%s ended with exit code %d, want 2, by SIGQUIT", id, got)
		}
	}
}

// filesTwice: one secret at two targets with two owners and modes, and nobody can take it away while it is used.
func filesTwice(t *testing.T, c *cluster) {
	c.write("m1", "/root/twice", "twice-told")
	c.shoal("secret", "create", "twice", "/root/twice")
	c.shoal("config", "create", "plain", "/root/twice")
	c.shoal("service", "create", "--name", "files", "--secret", "source=twice,target=one,uid=1000,gid=1001,mode=0400", "--secret", "source=twice,target=/etc/two",
		"--config", "source=plain,target=/etc/three,mode=0440", "--config", "source=plain,target=four", c.image("1.0.0"))
	s := c.full("files", 1)
	id := runningOf(s, "files")[0].GetMeta().GetId()
	got := c.beside(s, id, `cd /proc/$1/root && stat -c '%n %u:%g %a' run/secrets/one etc/two etc/three four && cat run/secrets/one etc/two etc/three four`)
	if want := "run/secrets/one 1000:1001 400\netc/two 0:0 444\netc/three 0:0 440\nfour 0:0 444\n" + strings.Repeat("twice-told", 4); got != want {
		t.Errorf("the files are\n%s\nwant\n%s", got, want)
	}
	c.refused([]string{"in use by service files"}, "secret", "rm", "twice")
	c.refused([]string{"in use by service files"}, "config", "rm", "plain")
	c.shoal("service", "rm", "files")
	until(t, "they can be removed when the service is gone", 20*time.Second, func() string {
		_, stderr, code := c.try(c.via, "shoal", "secret", "rm", "twice")
		return unless(fmt.Sprint(code, stderr), "0")
	})
}

// filledIn: data with placeholders is filled in for each task; what asks for something that nobody knows is refused at once,
// and what asks for a file that the container does not have, by the task.
func filledIn(t *testing.T, c *cluster) {
	c.write("m1", "/root/filled", `{{.Service.Name}}.{{.Task.Slot}} on {{.Node.Hostname}} of {{env "TIER"}} has {{secret "word"}}`)
	c.write("m1", "/root/word", "open sesame")
	c.write("m1", "/root/wrong", "hidden {{.Colour}}")
	c.write("m1", "/root/lost", `{{config "none"}}`)
	c.refused([]string{"data: line 1: a placeholder is not known"}, "config", "create", "--template-driver", "golang", "wrong", "/root/wrong")
	c.shoal("secret", "create", "word", "/root/word")
	for _, name := range []string{"filled", "lost"} {
		c.shoal("config", "create", "--template-driver", "golang", name, "/root/"+name)
	}
	c.shoal("config", "create", "asis", "/root/wrong")
	if got := c.shoal("config", "inspect", "-f", "{{.Spec.Templating.Name}}", "filled"); got != "golang" {
		t.Errorf("config inspect shows %q", got)
	}
	c.shoal("service", "create", "--name", "tmpl", "--replicas", "2", "--env", "TIER=front", "--secret", "word", "--config", "source=filled,target=/etc/filled",
		"--config", "source=asis,target=/etc/asis", c.image("1.0.0"))
	s := c.full("tmpl", 2)
	for _, task := range runningOf(s, "tmpl") {
		host := state.Hostname(s.Node(task.GetDecided().GetNodeId()))
		want := fmt.Sprintf("tmpl.%d on %s of front has open sesamehidden {{.Colour}}", task.GetDecided().GetSlot(), host)
		if got := c.beside(s, task.GetMeta().GetId(), "cat /proc/$1/root/etc/filled /proc/$1/root/etc/asis"); got != want {
			t.Errorf("the files are %q, want %q", got, want)
		}
	}
	c.shoal("service", "create", "--detach", "--name", "lost", "--config", "lost", "--restart-condition", "none", c.image("1.0.0"))
	c.sees("it is refused", 30*time.Second, func(s *state.Snapshot) string {
		said := ""
		for _, task := range tasksOf(s, "lost", false) {
			said += state.TaskReason(task, s.Node(task.GetDecided().GetNodeId()))
		}
		if !strings.Contains(said, `config "lost": it asks for config "none"`) {
			return "it says " + said
		}
		return ""
	})
}

func probes(t *testing.T, c *cluster) {
	for name, probe := range map[string][]string{
		"http": {"--health-http", "http://:8000/healthz"},
		"tcp":  {"--health-tcp", "8001"},
	} {
		c.shoal(append(append([]string{"service", "create", "--name", name, "--health-interval", "200ms"}, probe...), c.image("1.0.0"))...)
		task := runningOf(c.full(name, 1), name)[0]
		if got := c.shoal("task", "inspect", "-f", "{{.Status.ContainerStatus.Health}}", task.GetMeta().GetId()); got != "healthy" {
			t.Errorf("by %s it is %q", name, got)
		}
	}
	// Nothing listens there: it never runs, fails when its patience is over, and says why.
	began := c.now()
	c.shoal("service", "create", "--detach", "--name", "deaf", "--health-tcp", "9999", "--health-interval", "200ms", "--health-retries", "5",
		"--restart-condition", "none", c.image("1.0.0"))
	c.sees("it fails", 60*time.Second, func(s *state.Snapshot) string {
		for _, task := range tasksOf(s, "deaf", false) {
			return unless(task.GetObserved().GetState().String(), failed.String())
		}
		return "there is none"
	})
	if rows := c.tasks("deaf", false); len(rows) != 1 || !strings.Contains(rows[0].Error, "unhealthy: ") || !strings.Contains(rows[0].Error, "refused") {
		t.Errorf("a container that does not listen: %+v", rows)
	}
	c.never(began, func(s *state.Snapshot) string {
		if len(runningOf(s, "deaf")) > 0 {
			return "it was taken for running"
		}
		return ""
	})
}

// readinessApart: a task that is not ready runs on and gets no connection; when it is, it does, and again.
func readinessApart(t *testing.T, c *cluster) {
	for _, host := range []string{"m1", "w1"} {
		c.on(host, "mkdir", "-p", "/root/ready")
	}
	c.shoal("service", "create", "--detach", "--name", "slow", "-p", "30500:8000", "--mount", "type=bind,source=/root/ready,target=/flags",
		"--health-http", "http://:8000/healthz", "--health-interval", "200ms",
		"--ready-http", "http://:8000/exists?file=/flags/ready", "--ready-interval", "200ms", "--ready-retries", "1", c.image("1.0.0"))
	begun := c.sees("it runs", 60*time.Second, func(s *state.Snapshot) string { return unless(fmt.Sprint(len(runningOf(s, "slow"))), "1") })
	task := runningOf(begun, "slow")[0]
	id, host := task.GetMeta().GetId(), state.Hostname(begun.Node(task.GetDecided().GetNodeId()))
	ready := func(want bool) *state.Snapshot {
		return c.sees(fmt.Sprintf("it is ready: %t", want), 30*time.Second, func(s *state.Snapshot) string {
			return unless(fmt.Sprint(s.Task(id).GetObserved().GetReady()), fmt.Sprint(want))
		})
	}
	answers := func(want bool) {
		until(t, fmt.Sprintf("it takes connections: %t", want), 10*time.Second, func() string {
			_, err := ask(t.Context(), published(c.address("m1"), 30500))
			return unless(fmt.Sprint(err == nil), fmt.Sprint(want))
		})
	}
	c.after(ready(false), 2*time.Second) // ten looks
	answers(false)
	c.on(host, "touch", "/root/ready/ready")
	ready(true)
	answers(true)
	c.on(host, "rm", "/root/ready/ready")
	ready(false)
	answers(false)
	c.on(host, "touch", "/root/ready/ready")
	last := ready(true)
	c.kept(standing(begun, "slow"), standing(last, "slow"))
	if n := len(tasksOf(last, "slow", false)); n != 1 {
		t.Errorf("%d tasks were made, want the one", n)
	}
}
