package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Containers of a network find each other by name, those of others do not; names follow what runs.
func TestNames(t *testing.T) {
	c := bring(t, 1, 2)
	for _, network := range []string{"front", "back"} {
		c.shoal("network", "create", "-d", "overlay", network)
	}
	c.shoal("network", "create", "-d", "overlay", "--internal", "vault")
	image := c.image("1.0.0")
	c.shoal("service", "create", "--name", "web", "--replicas", "3", "--network", "front", image)
	c.shoal("service", "create", "--name", "db", "--replicas", "3", "--network", "back", image)
	c.shoal("service", "create", "--name", "safe", "--network", "vault", image)
	web, db, safe := c.boxes("web"), c.boxes("db"), c.boxes("safe")
	if len(web) != 3 || len(db) != 3 || len(safe) != 1 {
		t.Fatalf("one task on each machine is what this test stands on: %+v, %+v, %+v", web, db, safe)
	}
	t.Run("tasks by name on every machine", func(t *testing.T) {
		c := c.with(t)
		want := addressesOf(web)
		for _, from := range web {
			c.resolves(from, "tasks.web", want...)
			for slot := range 3 {
				if got := c.lookup(from, fmt.Sprintf("%d.web", slot+1)); len(got) != 1 || !slices.Contains(want, got[0]) {
					t.Errorf("slot %d from %s: %v, want one of %v", slot+1, from.host, got, want)
				}
			}
			c.resolves(from, "TASKS.web.front", want...)
		}
	})
	t.Run("by virtual address on every machine", func(t *testing.T) {
		c := c.with(t)
		vip := c.vip("web")
		for _, from := range web {
			c.resolves(from, "web", vip)
			c.takesTurns(c.fetched(from, "http://web:8000/", 30), 3, 10)
		}
		if came := c.fetched(db[0], "http://"+vip+":8000/", 1); len(came) != 1 || !strings.Contains(fmt.Sprint(came), "error") {
			t.Errorf("from another network the virtual address answers: %v", came)
		}
	})
	t.Run("nothing of other networks", func(t *testing.T) {
		c := c.with(t)
		for _, name := range []string{"web", "tasks.web", "1.web", "web.front"} {
			c.resolves(db[0], name)
		}
	})
	t.Run("two families, a range, small packets, an alias", func(t *testing.T) {
		c := c.with(t)
		c.shoal("network", "create", "--subnet", "10.77.0.0/24", "--ip-range", "10.77.0.64/26", "--aux-address", "printer=10.77.0.65", "--ipv6",
			"--opt", "mtu=1300", "dual")
		c.shoal("service", "create", "--name", "six", "--replicas", "3", "--network", "name=dual,alias=half-dozen", image)
		c.shoal("service", "create", "--name", "plain", "--endpoint-mode", "dnsrr", "--network", "dual", image)
		six := c.boxes("six")
		vips := strings.Fields(strings.ReplaceAll(c.shoal("service", "inspect", "--format", "{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}", "six"), "/", " "))
		if len(six) != 3 || len(vips) != 4 {
			t.Fatalf("%d tasks, virtual addresses %v", len(six), vips)
		}
		for _, from := range six {
			c.resolves(from, "half-dozen", vips[0], vips[2])
			c.takesTurns(c.fetched(from, "http://["+vips[2]+"]:8000/", 6), 3, 2)
			if link, _, _ := c.inside(from, "ip", "link", "show", "dev", "eth1"); !strings.Contains(link, "mtu 1300") {
				t.Errorf("eth1 on %s: %s", from.host, link)
			}
			if got := c.lookup(from, "plain"); len(got) != 2 { // the one task's address of each family
				t.Errorf("a service without a virtual address: %v", got)
			}
		}
		if ls := c.shoal("network", "ls", "--filter", "name=dual"); !strings.Contains(ls, "5/63") {
			t.Errorf("four tasks and one virtual address of 63 are used: %s", ls)
		}
		// Outside the range, where nobody gets one by chance.
		c.shoal("service", "create", "--name", "fixed", "--network", "name=dual,ip=10.77.0.200", image)
		fixed := c.boxes("fixed")
		if got := c.lookup(six[0], "tasks.fixed"); len(fixed) != 1 || fixed[0].network != "10.77.0.200" || !slices.Contains(got, fixed[0].network) {
			t.Errorf("a service with a fixed address has %+v, its name %v", fixed, got)
		}
		c.refused([]string{"network dual is in use by service"}, "network", "rm", "dual")
	})
	t.Run("outside, and not from an internal network", func(t *testing.T) {
		c := c.with(t)
		// The machines' own file names no server that answers in the laboratory: what counts is who is asked.
		if out := c.askNames(safe[0], "example.org"); !strings.Contains(out, "404") {
			t.Errorf("from an internal network: %s", out)
		}
		registry := "https://" + strings.TrimSuffix(image, "/micro:1.0.0") + "/v2/"
		for from, want := range map[box]string{web[0]: "200", safe[0]: "000"} {
			if out, _, _ := c.inside(from, "curl", "-sk", "--max-time", "3", "-o", "/dev/null", "-w", "%{http_code}", registry); out != want {
				t.Errorf("from %s to the outside: status %s, want %s", from.network, out, want)
			}
		}
		if came := c.fetched(safe[0], "http://safe:8000/", 3); len(came) != 1 {
			t.Errorf("within an internal network: %v", came)
		}
	})
	t.Run("a change is seen within a second", func(t *testing.T) {
		c := c.with(t)
		c.shoal("service", "scale", "--detach", "web=1")
		until(t, "two of three tasks have gone", 30*time.Second, func() string {
			if n := len(c.tasks("web", true)); n != 1 {
				return fmt.Sprintf("%d tasks", n)
			}
			return ""
		})
		left := addressesOf(c.boxes("web"))
		from := c.boxes("web")[0]
		until(t, "names have followed", time.Second, func() string {
			if got := c.lookup(from, "tasks.web"); !slices.Equal(got, left) {
				return fmt.Sprintf("%v, want %v", got, left)
			}
			return ""
		})
	})
	t.Run("a question waits for the next meshproxy", func(t *testing.T) {
		c := c.with(t)
		from := c.boxes("web")[0]
		want := addressesOf(c.boxes("web"))
		c.must(c.lab.Kill(t.Context(), from.host, "shoal-meshproxy"))
		c.resolves(from, "tasks.web", want...)
	})
}

// takesTurns expects so many answers of each of so many.
func (c *cluster) takesTurns(came map[string]int, tasks, each int) {
	c.t.Helper()
	ok := len(came) == tasks
	for _, n := range came {
		ok = ok && n == each
	}
	if !ok {
		c.t.Errorf("answers came from %v, want %d each of %d", came, each, tasks)
	}
}

// vip is a service's address on its one network.
func (c *cluster) vip(service string) string {
	c.t.Helper()
	out := strings.TrimSpace(c.shoal("service", "inspect", "--format", "{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}", service))
	address, _, ok := strings.Cut(out, "/")
	if !ok {
		c.t.Fatalf("service %s has the virtual addresses %q", service, out)
	}
	return address
}

func addressesOf(boxes []box) (out []string) {
	for _, b := range boxes {
		out = append(out, b.network)
	}
	slices.Sort(out)
	return out
}

// askNames has the container itself look a name up; the last line is the status.
func (c *cluster) askNames(from box, name string) string {
	c.t.Helper()
	out, stderr, _ := c.inside(from, "curl", "-sS", "--max-time", "12", "-w", "\n%{http_code}", "http://127.0.0.1:8000/lookup?name="+name)
	return out + stderr
}

// lookup is what the container finds, sorted; nothing if the name is none.
func (c *cluster) lookup(from box, name string) []string {
	c.t.Helper()
	lines := strings.Fields(c.askNames(from, name))
	if len(lines) == 0 || lines[len(lines)-1] != "200" {
		return nil
	}
	return lines[:len(lines)-1]
}

func (c *cluster) resolves(from box, name string, want ...string) {
	c.t.Helper()
	if got := c.lookup(from, name); !slices.Equal(got, want) {
		c.t.Errorf("%s from a container on %s: %v, want %v: %s", name, from.host, got, want, c.askNames(from, name))
	}
}

// fetched has the container ask a URL n times, and counts the answers by hostname or error.
func (c *cluster) fetched(from box, url string, n int) map[string]int {
	c.t.Helper()
	came, err := c.tryFetch(from, url, n)
	if err != "" {
		c.t.Fatalf("fetch %s from a container on %s: %s", url, from.host, err)
	}
	return came
}

// tryFetch is fetched for a container that may be gone.
func (c *cluster) tryFetch(from box, url string, n int) (came map[string]int, failed string) {
	c.t.Helper()
	out, stderr, code := c.inside(from, "curl", "-sS", "--max-time", "60", fmt.Sprintf("http://127.0.0.1:8000/fetch?n=%d&url=%s", n, url))
	if err := json.Unmarshal([]byte(out), &came); code != 0 || err != nil {
		return nil, "no answers: " + out + stderr
	}
	return came, ""
}
