package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/harness"
)

// Where tasks run is what the person asked for: a constraint keeps a service on labelled machines, a global service is on
// each machine that is there, a job ends, an update that fails goes back by itself and says so, a drain empties a machine.
func TestSchedulingAsAsked(t *testing.T) {
	c := bringWith(t, harness.Options{Managers: 1, Workers: 2, NoInit: true})
	c.on("m1", "shoal", "init", "--advertise-addr", c.address("m1"))
	token := c.shoal("join-token", "worker", "-q")
	c.on("w1", "shoal", "join", "--token", token, c.address("m1")+":2377")
	until(t, "w1 is ready", 10*time.Second, func() string { return unless(c.nodes()["w1"], "Ready") })
	c.tell([]step{
		{"a constraint keeps a service on the labelled machine", constrained},
		{"a global service follows a join", func(t *testing.T, c *cluster) { follows(t, c, token) }},
		{"a job completes", completes},
		{"an update that fails goes back and says so", goesBack},
		{"the number of tasks follows their load", followsLoad},
		{"the number of tasks follows their connections", followsConnections},
		{"a plan says what comes, and changes nothing", foretells},
		{"a drain moves what may move", drains},
	})
}

func constrained(t *testing.T, c *cluster) {
	c.shoal("node", "update", "--label-add", "disk=ssd", "w1")
	c.refused([]string{"constraints[0]", "node.lables.disk"}, "service", "create", "--name", "fit", "--constraint", "node.lables.disk==ssd", c.image("1.0.0"))
	c.shoal("service", "create", "--name", "fit", "--replicas", "2", "--constraint", "node.labels.disk==ssd", c.image("1.0.0"))
	c.placed("fit", map[string]int{"w1": 2})
	c.shoal("service", "create", "--detach", "--name", "nowhere", "--constraint", "node.labels.disk==tape", c.image("1.0.0"))
	until(t, "a task that fits nowhere says why", 5*time.Second, func() string {
		rows := c.tasks("nowhere", false)
		if len(rows) == 1 && strings.Contains(rows[0].Error, "2 nodes do not meet node.labels.disk==tape") {
			t.Logf("it says %s", rows[0].Error)
			return ""
		}
		return fmt.Sprintf("%+v", rows)
	})
	c.shoal("service", "rm", "nowhere")
}

func follows(t *testing.T, c *cluster, token string) {
	c.shoal("service", "create", "--name", "each", "--mode", "global", c.image("1.0.0"))
	c.placed("each", map[string]int{"m1": 1, "w1": 1})
	c.on("w2", "shoal", "join", "--token", token, c.address("m1")+":2377")
	took := c.placed("each", map[string]int{"m1": 1, "w1": 1, "w2": 1})
	if got := c.shoal("service", "ls", "--filter", "mode=global", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}"); got != "each global 3/3" {
		t.Errorf("service ls shows %q", got)
	}
	t.Logf("it runs on w2 %s after the join", took.Round(10*time.Millisecond))
}

func completes(t *testing.T, c *cluster) {
	const replicas = "{{.Mode}} {{.Replicas}}"
	// The image's program ends with 0 when it is asked for help, and with 1 as crash.
	c.shoal("service", "create", "--name", "once", "--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "2", c.image("1.0.0"), "-h")
	if got := c.shoal("service", "ls", "--filter", "name=once", "--format", replicas); got != "replicated job 0/2 (3/3 completed)" {
		t.Errorf("service ls shows %q", got)
	}
	c.refused([]string{"the job failed", "given up"}, "service", "create", "--name", "never", "--mode", "global-job",
		"--restart-condition", "none", c.image("crash"))
	c.shoal("service", "rm", "once", "never")
}

func goesBack(t *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "web", "--replicas", "2", "--update-failure-action", "rollback", "--update-monitor", "2s",
		"--restart-delay", "0s", c.image("1.0.0"))
	began := time.Now()
	c.refused([]string{"rolled back to version 1", "exit 1"}, "service", "update", "--image", c.image("crash"), "web")
	t.Logf("rolled back within %s", time.Since(began).Round(10*time.Millisecond))
	c.runs("web", "1.0.0", 2)
	c.shoal("service", "update", "--image", c.image("1.1.0"), "--update-failure-action", "pause", "web")
	c.runs("web", "1.1.0", 2)
	c.refused([]string{"update paused", "exit 1"}, "service", "update", "--image", c.image("crash"), "web")
	c.shoal("service", "rollback", "web")
	c.runs("web", "1.1.0", 2)
	c.shoal("service", "rm", "web")
}

// followsLoad has a container that is busier than its target: what the kernel counts of it brings more of them, and the reason
// says so. One that is idle brings the number back after the window.
func followsLoad(t *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "busy", "--env", "BUSY_MS=20", "--limit-cpu", "0.2", "--autoscale-max", "3", "--autoscale-cpu", "40",
		"--autoscale-down-window", "1s", c.image("1.0.0"))
	count := func(want string) func() string {
		return func() string {
			return unless(c.shoal("service", "ls", "--filter", "name=busy", "--format", "{{.Replicas}}"), want)
		}
	}
	took := until(t, "there are more tasks", time.Minute, count("3/3"))
	why := c.shoal("service", "inspect", "-f", "{{.Scale.Reason}}", "busy")
	if !strings.Contains(why, "→ 3: cpu ") || !strings.Contains(why, " % of target") {
		t.Errorf("the reason is %q", why)
	}
	t.Logf("3 tasks after %s: %s", took.Round(time.Second), why)
	c.shows([]string{"Scales by its load: 3 tasks, from 1 to 3", "% of target by"}, "service", "explain", "busy")
	c.refused([]string{"replicas: follows the load, from 1 to 3"}, "service", "scale", "busy=2")
	c.shoal("service", "update", "--env-rm", "BUSY_MS", "busy")
	t.Logf("1 task after %s", until(t, "there is one task", time.Minute, count("1/1")).Round(time.Second))
	c.shoal("service", "rm", "busy")
}

// followsConnections has clients open connections to a published port on every machine, a few dozen a second together: there are
// as many tasks as that calls for, and one again when it has ended.
func followsConnections(t *testing.T, c *cluster) {
	c.shoal("service", "create", "--name", "asked", "-p", "30070:8000", "--autoscale-max", "9", "--autoscale-connections", "25",
		"--autoscale-down-window", "1s", c.image("1.0.0"))
	settle(t, c, 30070, 1)
	count := func(want string) func() string {
		return func() string {
			return unless(c.shoal("service", "ls", "--filter", "name=asked", "--format", "{{.Replicas}}"), want)
		}
	}
	l := startLoad(t.Context(), published(c.address("m1"), 30070), published(c.address("w1"), 30070), published(c.address("w2"), 30070))
	defer l.stop()
	took := until(t, "there are more tasks", 90*time.Second, count("3/3"))
	t.Logf("3 tasks after %s: %s; load %s", took.Round(time.Second), c.shoal("service", "inspect", "-f", "{{.Scale.Reason}}", "asked"),
		c.shoal("service", "inspect", "-f", "{{json .Load}}", "asked"))
	c.shows([]string{"connections ", " 3 machines"}, "service", "explain", "asked")
	l.stop()
	if got := l.take(); got.failed > 0 {
		t.Errorf("%s; the last: %v", got, got.example)
	}
	t.Logf("1 task after %s", until(t, "there is one task", 90*time.Second, count("1/1")).Round(time.Second))
	c.shoal("service", "rm", "asked")
}

// foretells asks what a drain would do; the step after this one does it, and finds what was foretold.
func foretells(t *testing.T, c *cluster) {
	c.shoal("node", "update", "--label-add", "disk=ssd", "w2")
	ids := func() string { return c.shoal("service", "ps", "fit", "each", "-q") }
	before := ids()
	var plan struct {
		Nodes []struct {
			Node          string
			Before, After int
		}
		Services []struct {
			Service      string
			Least, Floor int
			Kept         bool
		}
	}
	if err := json.Unmarshal([]byte(c.shoal("plan", "--format", "json", "node", "drain", "w1")), &plan); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(plan.Nodes); got != "[{w1 3 0} {w2 1 3}]" {
		t.Errorf("a drain of w1 would lead to %s", got)
	}
	if got := fmt.Sprint(plan.Services); got != "[{each 2 1 true} {fit 1 1 true}]" {
		t.Errorf("services on the way: %s", got)
	}
	c.refused([]string{"constraints[0]", "node.lables.disk"}, "plan", "service", "create", "--name", "none", "--constraint", "node.lables.disk==ssd", c.image("1.0.0"))
	c.shows([]string{"none.1 would wait: no suitable node: 3 nodes do not meet node.labels.disk==tape", "Nothing was changed"},
		"plan", "service", "create", "--name", "none", "--constraint", "node.labels.disk==tape", c.image("1.0.0"))
	c.shows([]string{"lose", "fit.1", "w1 -> w2"}, "plan", "node", "power-off", "w1")
	c.shows([]string{"2 of 3", "Kept out: 1 node does not meet node.labels.disk==ssd"}, "service", "explain", "fit")
	if after := ids(); after != before || c.shoal("service", "ls", "-q", "--filter", "name=none") != "" {
		t.Errorf("plans have changed something: tasks were\n%s\nand are\n%s", before, after)
	}
}

// shows checks that a command prints some texts.
func (c *cluster) shows(texts []string, args ...string) {
	c.t.Helper()
	out := c.shoal(args...)
	for _, want := range texts {
		if !strings.Contains(out, want) {
			c.t.Errorf("shoal %s: no %q in\n%s", strings.Join(args, " "), want, out)
		}
	}
}

func drains(_ *testing.T, c *cluster) {
	c.shoal("node", "update", "--availability", "drain", "w1")
	c.placed("fit", map[string]int{"w2": 2})
	c.placed("each", map[string]int{"m1": 1, "w2": 1})
	c.shoal("node", "update", "--availability", "active", "w1")
	c.placed("each", map[string]int{"m1": 1, "w1": 1, "w2": 1})
	c.shoal("node", "update", "--taint-add", "closed:no-execute", "w1")
	c.placed("each", map[string]int{"m1": 1, "w2": 1})
	c.placed("fit", map[string]int{"w2": 2}) // nothing moves back
}

// placed waits until a service's live tasks are where they should be.
func (c *cluster) placed(service string, want map[string]int) time.Duration {
	c.t.Helper()
	return until(c.t, fmt.Sprintf("%s runs on %v", service, want), 15*time.Second, func() string {
		if got := c.spread(service); !maps.Equal(got, want) {
			return fmt.Sprint(got)
		}
		return ""
	})
}

// runs checks that all live tasks are of one image, and that there are n.
func (c *cluster) runs(service, tag string, n int) {
	c.t.Helper()
	rows := c.tasks(service, true)
	for _, r := range rows {
		if !strings.HasSuffix(r.Image, ":"+tag) && !strings.Contains(r.Image, ":"+tag+"@") {
			c.t.Errorf("%s runs %s, want %s", r.Name, r.Image, tag)
		}
	}
	if len(rows) != n {
		c.t.Errorf("%d tasks of %s run, want %d: %+v", len(rows), service, n, rows)
	}
}
