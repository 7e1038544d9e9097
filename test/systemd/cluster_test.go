package systemd

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// shoal runs the shoal command on the manager; it must succeed.
func (c *cluster) shoal(format string, args ...any) string {
	c.t.Helper()
	return c.on("m1", "shoal "+format, args...)
}

// nodes are the nodes' states by host name.
func (c *cluster) nodes() map[string]string {
	c.t.Helper()
	said, err := c.try("m1", "shoal node ls --format '{{.Hostname}} {{.Status}}'")
	out := map[string]string{}
	if err != nil {
		out["error"] = err.Error()
		return out
	}
	for line := range strings.Lines(said) {
		name, status, _ := strings.Cut(strings.TrimSpace(line), " ")
		out[name] = status
	}
	return out
}

// ready waits until all machines are ready.
func (c *cluster) ready(within time.Duration) time.Duration {
	c.t.Helper()
	return c.until("three nodes are ready", within, func() string {
		got := c.nodes()
		for _, name := range c.Names() {
			if got[name] != "Ready" {
				return fmt.Sprint(got)
			}
		}
		return ""
	})
}

// taskRow is a line of `shoal service ps --format json`.
type taskRow struct{ ID, Name, Node, DesiredState, CurrentState, Error string }

// tasks lists a service's tasks that are wanted and running, or all.
func (c *cluster) tasks(service string, live bool) []taskRow {
	c.t.Helper()
	var rows []taskRow
	for line := range strings.Lines(c.shoal("service ps --no-trunc --format json %s", service)) {
		var r taskRow
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			c.t.Fatalf("service ps printed %q: %v", line, err)
		}
		if !live || r.DesiredState == "Running" && strings.HasPrefix(r.CurrentState, "Running") {
			rows = append(rows, r)
		}
	}
	return rows
}

// converged waits until a service shows n/n.
func (c *cluster) converged(service string, n int, within time.Duration) time.Duration {
	c.t.Helper()
	want := fmt.Sprintf("%d/%d", n, n)
	return c.until(service+" converges to "+want, within, func() string {
		got, err := c.try("m1", "shoal service ls --filter name="+service+" --format '{{.Replicas}}'")
		if err != nil || got != want {
			return got
		}
		return ""
	})
}

// spread counts a service's live tasks by node.
func (c *cluster) spread(service string) map[string]int {
	c.t.Helper()
	by := map[string]int{}
	for _, r := range c.tasks(service, true) {
		by[r.Node]++
	}
	return by
}

// container is what a test needs of `shoal task inspect`.
type container struct {
	Status struct {
		State           string
		ContainerStatus struct {
			ContainerID string
			PID         int
			ExitCode    int
		}
	}
}

func (c *cluster) container(task string) container {
	c.t.Helper()
	var out []container
	if err := json.Unmarshal([]byte(c.shoal("task inspect %s", task)), &out); err != nil || len(out) != 1 {
		c.t.Fatalf("task inspect %s: %v", task, err)
	}
	return out[0]
}

// answeredByAll waits until every machine's port is answered by n containers.
func (c *cluster) answeredByAll(n int) {
	c.t.Helper()
	for _, name := range c.Names() {
		c.until(fmt.Sprintf("%d containers answer on %s", n, name), 15*time.Second, func() string {
			by := map[string]bool{}
			for range 3 * n {
				who, err := c.ask(c.t.Context(), name)
				if err != nil {
					return err.Error()
				}
				by[who] = true
			}
			if len(by) != n {
				return fmt.Sprint(len(by))
			}
			return ""
		})
	}
}

// started are the start times of the containers' first processes, by container, on every machine: equal before and after
// means that nothing was restarted.
func (c *cluster) started() map[string]string {
	c.t.Helper()
	return c.startedOn(c.Names()...)
}

func (c *cluster) startedOn(names ...string) map[string]string {
	c.t.Helper()
	out := map[string]string{}
	for _, name := range names {
		const script = `for id in $(ctr -n shoal containers ls -q); do
pid=$(ctr -n shoal task ls | awk -v id="$id" '$1 == id { print $2 }')
echo "$id pid $pid since $(sed 's/.*) //' "/proc/$pid/stat" | cut -d' ' -f20)"
done`
		for line := range strings.Lines(c.on(name, "%s", script)) {
			id, since, _ := strings.Cut(strings.TrimSpace(line), " ")
			out[id] = name + " " + since
		}
	}
	return out
}
