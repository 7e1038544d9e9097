//go:build chaos

package e2e

import (
	"fmt"
	"net"
	"testing"
	"time"
)

// Connections live as long as their ends want: nothing is said on them for 20 minutes, and they still carry what is said then. For 10 of
// these minutes there is no control plane, and no request fails.
func TestSilenceIsNoEnd(t *testing.T) {
	const silence, alone = 20 * time.Minute, 10 * time.Minute
	c := bring(t, 1, 2)
	c.shoal("network", "create", "-d", "overlay", "front")
	c.shoal("service", "create", "--name", "web", "--replicas", "3", "--network", "front",
		"-p", "30100:8001", "-p", "30101:8000", "-p", "published=30200,target=8001,dataplane=userspace", c.image("1.0.0"))
	c.converged("web", 3, 30*time.Second)
	caller := c.boxes("web")[0]
	ways := c.ways(caller)
	open := map[string]net.Conn{}
	for name, w := range ways {
		for i := range 3 { // one to each task
			conn, err := w()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if err := echoOn(conn); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			open[fmt.Sprintf("%s, connection %d", name, i+1)] = conn
		}
	}
	quiet := time.After(silence)
	c.withoutControl(alone, caller)
	<-quiet
	for name, conn := range open {
		if err := echoOn(conn); err != nil {
			t.Errorf("%s, after %s of silence: %v", name, silence, err)
		}
	}
	t.Logf("%d connections of %d ways asked after %s of silence", len(open), len(ways), silence)
}

// ways are those by which a task's port is reached: its echo answers on each connection.
func (c *cluster) ways(caller box) map[string]func() (net.Conn, error) {
	space, vip := c.space(caller.host, caller.pid), net.JoinHostPort(c.vip("web"), "8001")
	ways := map[string]func() (net.Conn, error){
		"virtual address": func() (net.Conn, error) { return dialWithin(space, "tcp", vip) },
	}
	for _, host := range []string{"m1", "w1"} {
		for name, port := range map[string]int{"kernel": 30100, "user space": 30200} {
			to := published(c.address(host), port)
			ways[name+" by "+host] = func() (net.Conn, error) { return net.DialTimeout("tcp", to, 2*time.Second) }
		}
		at := c.space(host, 0)
		ways["loopback of "+host] = func() (net.Conn, error) { return dialWithin(at, "tcp", "127.0.0.1:30100") }
	}
	return ways
}
