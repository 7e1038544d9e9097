package e2e

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A service that can't run says why, tries again at its restart delay, and harms no other: an image that does not exist is
// rejected in the registry's words, a program that ends at once fails with its exit code.
func TestFailingServices(t *testing.T) {
	c := bring(t, 1, 1)
	image := c.image("1.0.0")
	c.shoal("service", "create", "--name", "micro", "-p", "8000", "--replicas", "2", image)
	healthy := c.tasks("micro", true)
	const delay = 2 * time.Second
	began := time.Now()
	c.shoal("service", "create", "--detach", "--name", "ghost", "--restart-delay", delay.String(), strings.Replace(image, "micro:", "ghost:", 1))
	c.shoal("service", "create", "--detach", "--name", "crash", "--restart-delay", delay.String(), c.image("crash"))
	c.shoal("service", "create", "--detach", "--name", "once", "--restart-condition", "none", c.image("crash"))
	for _, service := range []struct {
		name, state, says string
		least             time.Duration // that three attempts take
	}{
		// A successor is prepared while its delay runs, so that it can start at its end; a pull that fails does so at once.
		{"ghost", "Rejected", "has no such image", delay},
		{"crash", "Failed", "exit code 1", 2 * delay},
	} {
		t.Run(service.name, func(t *testing.T) {
			c := c.with(t)
			const attempts = 3
			took := until(t, "three attempts are in service ps", 30*time.Second, func() string {
				if n := len(c.ended(service.name, service.state)); n < attempts {
					return strconv.Itoa(n) + " attempts: " + c.shoal("service", "ps", service.name)
				}
				return ""
			})
			if all := time.Since(began); all < service.least {
				t.Errorf("three attempts within %s, although the delay is %s", all, delay)
			}
			rows := c.ended(service.name, service.state)
			for _, r := range rows {
				if !strings.Contains(r.Error, service.says) {
					t.Errorf("a %s task says %q, want it to contain %q", service.state, r.Error, service.says)
				}
			}
			t.Logf("three attempts after %s more; each says %s", took.Round(time.Millisecond), rows[0].Error)
			if got := c.shoal("service", "ls", "--filter", "name="+service.name, "--format", "{{.Replicas}}"); got != "0/1" && got != "1/1" {
				t.Errorf("service ls shows %s", got)
			}
		})
	}
	crashed := c.inspectTask(c.ended("crash", "Failed")[0].ID)
	if crashed.Status.ContainerStatus.ExitCode != 1 {
		t.Errorf("task inspect of a crash: %+v, want exit code 1", crashed)
	}
	// A service that must not be restarted is not.
	if rows := c.tasks("once", false); len(rows) != 1 || !strings.HasPrefix(rows[0].CurrentState, "Failed") {
		t.Errorf("with restart condition none: %+v, want one failed task", rows)
	}
	if !slices.Equal(taskIDs(c.tasks("micro", true)), taskIDs(healthy)) {
		t.Errorf("the healthy service's tasks changed: %+v, were %+v", c.tasks("micro", true), healthy)
	}
	if _, err := ask(t.Context(), published(c.address("w1"), 30000)); err != nil {
		t.Errorf("the healthy service: %v", err)
	}
	for _, name := range []string{"ghost", "crash", "once"} {
		c.shoal("service", "rm", name)
	}
	until(t, "only the healthy service's containers are left", 15*time.Second, func() string {
		if all := strings.Fields(containers(c, "m1") + " " + containers(c, "w1")); len(all) != 2 {
			return strings.Join(all, " ")
		}
		return ""
	})
}

// ended lists a service's tasks that came to a state, the newest first.
func (c *cluster) ended(service, state string) []taskRow {
	c.t.Helper()
	return slices.DeleteFunc(c.tasks(service, false), func(r taskRow) bool { return !strings.HasPrefix(r.CurrentState, state) })
}

func taskIDs(rows []taskRow) []string {
	var out []string
	for _, r := range rows {
		out = append(out, r.ID)
	}
	slices.Sort(out)
	return out
}
