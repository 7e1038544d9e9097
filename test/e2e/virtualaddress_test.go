package e2e

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// A service behind a virtual address is changed under load from containers of its network: no new connection fails, whatever
// the order, nor while meshproxies are killed. The address stays what it was, and none is lost with services that come and go.
func TestVirtualAddress(t *testing.T) {
	virtualAddress(t, false)
}

// virtualAddress is the test; whole is with what takes minutes.
func virtualAddress(t *testing.T, whole bool) {
	c := bring(t, 1, 2)
	c.shoal("network", "create", "-d", "overlay", "front")
	image := c.image("1.0.0")
	// With a probe: on a loaded machine a process may take longer to listen than the mesh waits for it without one. With drain time: a
	// connection that is made just before a task leaves the tables asks just after.
	c.shoal("service", "create", "--name", "web", "--replicas", "4", "--network", "front", "--ready-http", "http://:8000/", "--ready-interval", "200ms",
		"--drain-time", "200ms", image)
	c.shoal("service", "create", "--name", "caller", "--replicas", "3", "--network", "front", image)
	callers := c.boxes("caller")
	if len(callers) != 3 {
		t.Fatalf("one caller on each machine is what this test stands on: %+v", callers)
	}
	vip := c.vip("web")
	for _, to := range []struct{ order, tag string }{{"start-first", "1.1.0"}, {"stop-first", "1.0.0"}} {
		t.Run(to.order, func(t *testing.T) {
			c := c.with(t)
			c.underLoad(callers, "http://web:8000/", func() {
				c.shoal("service", "update", "--image", c.image(to.tag), "--update-order", to.order, "web")
			})
			if now := c.vip("web"); now != vip {
				t.Errorf("after the update the virtual address is %s, want %s", now, vip)
			}
		})
	}
	t.Run("scale", func(t *testing.T) {
		c := c.with(t)
		c.underLoad(callers, "http://web:8000/", func() {
			c.shoal("service", "scale", "web=20")
			c.shoal("service", "scale", "web=2")
		})
	})
	t.Run("meshproxies killed", func(t *testing.T) {
		c := c.with(t)
		c.underLoad(callers, "http://"+vip+":8000/", func() {
			for _, b := range callers {
				c.must(c.lab.Kill(t.Context(), b.host, "shoal-meshproxy"))
			}
		})
		c.shoal("service", "scale", "web=4")
		for _, b := range callers {
			until(t, "the next meshproxy has the change in force", 5*time.Second, func() string {
				if came := c.fetched(b, "http://"+vip+":8000/", 4); len(came) != 4 {
					return fmt.Sprint(came)
				}
				return ""
			})
		}
	})
	t.Run("drain time", func(t *testing.T) { c.with(t).drainTime(callers[0]) })
	if whole {
		t.Run("partition", func(t *testing.T) { partitioned(t, c.with(t), callers, vip) })
	}
}

// drainTime has a caller make a connection and say nothing until the task hears of its end: it still is answered. A server of Go's net/http
// that was asked to end closes such a connection without a word.
func (c *cluster) drainTime(caller box) {
	c.t.Helper()
	c.shoal("service", "create", "--name", "brief", "--network", "front", "--drain-time", "20s", c.image("1.0.0"))
	conn, err := dialWithin(c.space(caller.host, caller.pid), "tcp", published(c.vip("brief"), 8000))
	c.must(err)
	defer conn.Close()
	id := c.tasks("brief", true)[0].ID
	c.shoal("service", "scale", "--detach", "brief=0")
	until(c.t, "nobody is led to it any more", 15*time.Second, func() string {
		return unless(c.inspectTask(id).Status.Message, "waits while its connections have time to end")
	})
	c.must(conn.SetDeadline(time.Now().Add(5 * time.Second)))
	_, err = fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
	c.must(err)
	if answer, err := io.ReadAll(conn); !strings.Contains(string(answer), "hostname=") {
		c.t.Errorf("a request on a connection that was there before is answered %q, %v", answer, err)
	}
}

// partitioned cuts one caller's machine off while the service is scaled down: names and addresses are right soon after it is back.
func partitioned(t *testing.T, c *cluster, callers []box, vip string) {
	cut := callers[2]
	c.must(c.lab.Isolate(t.Context(), cut.host))
	run := time.Now()
	c.shoal("service", "scale", "--detach", "web=2")
	until(t, "the rest is right while it is cut off", 60*time.Second, func() string {
		if time.Since(run) < 30*time.Second {
			return "not 30 s yet"
		}
		if n := len(c.tasks("web", true)); n != 2 {
			return fmt.Sprintf("%d tasks", n)
		}
		return ""
	})
	c.must(c.lab.Heal(t.Context()))
	took := until(t, "names and addresses are right on every machine", 3*time.Second, func() string {
		for _, b := range callers {
			came, err := c.tryFetch(b, "http://"+vip+":8000/", 4)
			if err != "" && b.host == cut.host {
				continue // it was replaced, as those of a machine that is down are
			}
			if got := c.lookup(b, "tasks.web"); err != "" || len(got) != 2 || len(came) != 2 {
				return fmt.Sprintf("%s: names lead to %v, answers come from %v %s; want two tasks", b.host, got, came, err)
			}
		}
		return ""
	})
	t.Logf("right %s after the heal", took.Round(10*time.Millisecond))
}

// underLoad does something while containers dial without end, and counts what failed.
func (c *cluster) underLoad(callers []box, url string, do func()) {
	c.t.Helper()
	type result struct {
		host string
		came map[string]int
	}
	stop, results := make(chan struct{}), make(chan result)
	for _, b := range callers {
		go func() {
			all := map[string]int{}
			for {
				for who, n := range c.fetched(b, url, 50) {
					all[who] += n
				}
				select {
				case <-stop:
					results <- result{b.host, all}
					return
				default:
				}
			}
		}()
	}
	do()
	close(stop)
	for range callers {
		r := <-results
		total, failed := 0, ""
		for who, n := range r.came {
			total += n
			if strings.HasPrefix(who, "error") {
				failed += fmt.Sprintf("%d %s\n", n, who)
			}
		}
		c.t.Logf("%s: %d connections", r.host, total)
		if failed != "" {
			c.t.Errorf("from %s failed of %d: %s", r.host, total, failed)
		}
	}
}
