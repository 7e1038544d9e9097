package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// Containers of one network reach each other across machines by address, over TCP and UDP; those of different networks do
// not; the machine network leads outwards, and not to other machines' containers.
func TestNetworks(t *testing.T) {
	c := bring(t, 1, 2)
	c.shoal("network", "create", "-d", "overlay", "--attachable", "front")
	c.shoal("network", "create", "-d", "overlay", "back")
	image := c.image("1.0.0")
	c.shoal("service", "create", "--name", "web", "--replicas", "3", "--network", "front", image)
	c.shoal("service", "create", "--name", "db", "--replicas", "3", "--network", "back", image)
	web, db := c.boxes("web"), c.boxes("db")
	if len(web) != 3 || len(db) != 3 {
		t.Fatalf("one task of each service on each machine is what this test stands on: %+v, %+v", web, db)
	}
	t.Run("one network, every pair of machines", func(t *testing.T) {
		c := c.with(t)
		for _, from := range web {
			for _, to := range web {
				c.reaches(from, to.network, true)
			}
		}
	})
	t.Run("different networks do not meet", func(t *testing.T) {
		c := c.with(t)
		for _, from := range web {
			c.reaches(from, db[0].network, false)
		}
		// Not even by the machine that both are on.
		c.reaches(db[0], web[0].network, false)
	})
	t.Run("what containers may say of themselves comes back", func(t *testing.T) {
		c := c.with(t)
		c.on("w1", "nft", "delete", "table", "bridge", "shoal")
		until(t, "the table is there again", 2*time.Second, func() string {
			out, _, _ := c.try("w1", "nft", "list", "set", "bridge", "shoal", "owners4")
			for _, b := range []box{web[1], db[1]} {
				if b.host != "w1" || !strings.Contains(out, b.network) || !strings.Contains(out, b.machine) {
					return fmt.Sprintf("of %+v: %s", b, out)
				}
			}
			return ""
		})
	})
	t.Run("who may call", func(t *testing.T) { c.with(t).whoMayCall(web, image) })
	t.Run("a container of another tool", func(t *testing.T) { c.with(t).guest(web, db) })
	t.Run("an encrypted network", func(t *testing.T) { c.with(t).encrypted(image) })
	t.Run("outwards through the machine", func(t *testing.T) {
		c := c.with(t)
		registry := "https://" + strings.TrimSuffix(image, "/micro:1.0.0") + "/v2/"
		for _, from := range web {
			out, stderr, _ := c.inside(from, "curl", "-sk", "--max-time", "3", "-o", "/dev/null", "-w", "%{http_code}", registry)
			if out != "200" {
				t.Errorf("from a container on %s to %s: status %s %s", from.host, registry, out, stderr)
			}
		}
	})
	t.Run("the machine network is no way between containers", func(t *testing.T) {
		c := c.with(t)
		c.reaches(web[0], web[1].machine, false)
		c.reaches(web[0], db[2].machine, false)
	})
	t.Run("links of 1,400 bytes", func(t *testing.T) { c.with(t).narrow(image) })
	t.Run("a container that goes takes its address along", func(t *testing.T) {
		c := c.with(t)
		defer func() {
			if said := c.shoal("doctor", "addresses"); !strings.HasPrefix(said, "ok ") {
				t.Errorf("the doctor says of the addresses: %s", said)
			}
		}()
		c.shoal("service", "scale", "web=1")
		c.converged("web", 1, 30*time.Second)
		c.shoal("service", "scale", "web=3")
		c.converged("web", 3, 30*time.Second)
		again := c.boxes("web")
		for _, from := range again {
			for _, to := range again {
				c.reaches(from, to.network, true)
			}
		}
	})
}

// whoMayCall has a service that is open to all name its callers, one after another: what is told is in force within a second, on its
// network, by its virtual address and by its published port.
func (c *cluster) whoMayCall(web []box, image string) {
	c.t.Helper()
	c.shoal("service", "create", "--name", "safe", "--network", "front", "--publish", "30977:8000", image)
	safe := c.boxes("safe")[0]
	answers := func(from box, url string) bool {
		_, _, code := c.inside(from, "curl", "-sS", "-o", "/dev/null", "--max-time", "2", url)
		return code == 0
	}
	port := func() bool {
		_, _, code := c.try(web[0].host, "curl", "-sS", "-o", "/dev/null", "--max-time", "2", "http://127.0.0.1:30977/")
		return code == 0
	}
	vip := "http://" + c.vip("safe") + ":8000/"
	step := func(what string, may, published bool, flags ...string) {
		c.t.Helper()
		if len(flags) > 0 {
			c.shoal(append(append([]string{"service", "update"}, flags...), "safe")...)
		}
		until(c.t, what, time.Second, func() string {
			direct, balanced, outside := answers(web[0], "http://"+safe.network+":8000/"), answers(web[1], vip), port()
			if direct != may || balanced != may || outside != published {
				return fmt.Sprintf("%s: answers directly %t, by the virtual address %t, by the port %t", what, direct, balanced, outside)
			}
			return ""
		})
	}
	step("anybody may", true, true)
	step("only the machines' loopback may", false, true, "--allow-from", "127.0.0.0/8")
	step("web may too", true, true, "--allow-from-add", "web")
	step("web alone may", true, false, "--allow-from-rm", "127.0.0.0/8")
	step("nobody with that label is there", false, false, "--allow-from", "label:tier=none")
	step("anybody may again", true, true, "--allow-from-rm", "label:tier=none")
	if now := c.boxes("safe"); len(now) != 1 || now[0].pid != safe.pid {
		c.t.Errorf("its task was replaced: %+v, was %+v", now, safe)
	}
	c.shoal("service", "rm", "safe")
}

// narrow has the machines' links carry 1,400 bytes, as in many a cloud: what containers are told fits into the tunnels, and as much as one
// likes gets through whole, from one to the other and by a published port.
func (c *cluster) narrow(image string) {
	c.t.Helper()
	hosts, err := c.lab.Hosts()
	c.must(err)
	links := func(mtu string) {
		for _, host := range hosts {
			c.on(host, "ip", "link", "set", "eth0", "mtu", mtu)
		}
		fits := fmt.Sprintf("mtu %s", map[string]string{"1400": "1350", "1500": "1450"}[mtu])
		until(c.t, "the machines know what their links carry", 15*time.Second, func() string {
			for _, host := range hosts {
				if link := c.on(host, "ip", "link", "show", "shoal0"); !strings.Contains(link, fits) {
					return host + ": " + link
				}
			}
			return ""
		})
	}
	links("1400")
	defer links("1500")
	c.shoal("network", "create", "-d", "overlay", "narrow")
	c.shoal("service", "create", "--name", "slim", "--replicas", "3", "--network", "narrow", "-p", "30978:8001", image)
	slim := c.boxes("slim")
	for _, from := range slim {
		for _, link := range []string{"eth0", "eth1"} {
			if said, _, _ := c.inside(from, "ip", "link", "show", link); !strings.Contains(said, "mtu 1350") {
				c.t.Errorf("a container on %s has %s", from.host, said)
			}
		}
		for _, to := range slim {
			c.much(from, to.network+":8001")
		}
		for _, host := range hosts {
			c.much(from, c.address(host)+":30978")
		}
	}
	c.shoal("service", "rm", "slim")
}

// much has a container send many full packets, by TCP, and get them back.
func (c *cluster) much(from box, to string) {
	c.t.Helper()
	sent, got := bytes.Repeat([]byte("shoal "), 50_000), []byte(nil)
	err := within(c.space(from.host, from.pid), func() error {
		conn, err := net.DialTimeout("tcp", to, 2*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		said := make(chan error, 1)
		go func() {
			_, err := conn.Write(sent)
			said <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
		}()
		got, err = io.ReadAll(conn)
		return errors.Join(err, <-said)
	})
	if err != nil || !bytes.Equal(sent, got) {
		c.t.Errorf("from a container on %s to %s: %d bytes of %d came back: %v", from.host, to, len(got), len(sent), err)
	}
}

// box is a running container as seen from its machine.
type box struct {
	host             string
	pid              int
	machine, network string // its addresses on the machine network and on its own
}

// boxes are the containers of a service that is on one network, in the order of their machines.
func (c *cluster) boxes(service string) []box {
	c.t.Helper()
	var out []box
	hosts, err := c.lab.Hosts()
	c.must(err)
	for _, host := range hosts {
		for _, row := range c.tasks(service, true) {
			if row.Node != host {
				continue
			}
			b := box{host: host, pid: c.inspectTask(row.ID).Status.ContainerStatus.PID}
			b.machine, b.network = c.addressInside(b, "eth0"), c.addressInside(b, "eth1")
			out = append(out, b)
		}
	}
	return out
}

func (c *cluster) addressInside(b box, link string) string {
	c.t.Helper()
	out, stderr, code := c.inside(b, "ip", "-4", "-br", "address", "show", "dev", link)
	fields := strings.Fields(out)
	if code != 0 || len(fields) < 3 {
		c.t.Fatalf("no address on %s of a container on %s: %s%s", link, b.host, out, stderr)
	}
	address, _, _ := strings.Cut(fields[2], "/")
	return address
}

// inside runs a program of the machine in a container's network.
func (c *cluster) inside(b box, args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	return c.try(b.host, append([]string{"nsenter", "-n", "-t", fmt.Sprint(b.pid), "--"}, args...)...)
}

// reaches tries HTTP, the TCP echo and the UDP echo of micro from a container.
func (c *cluster) reaches(from box, address string, want bool) {
	c.t.Helper()
	for _, way := range []struct{ name, script string }{
		{"HTTP", "curl -sS --max-time 1 http://%s:8000/ | grep -c hostname="},
		{"TCP", `exec 3<>/dev/tcp/%s/8001 && echo hello >&3 && head -1 <&3 | grep -c hello`},
		{"UDP", `exec 3<>/dev/udp/%s/8002 && echo hello >&3 && head -1 <&3 | grep -c hello`},
	} {
		out, stderr, _ := c.inside(from, "timeout", "2", "bash", "-c", fmt.Sprintf(way.script, address))
		if got := strings.TrimSpace(out) == "1"; got != want {
			c.t.Errorf("%s from a container on %s (%s) to %s: answers %t, want %t; %s", way.name, from.host, from.network, address, got, want, stderr)
		}
		if !want && way.name == "HTTP" {
			continue
		}
		if !want {
			return // one more way is enough to see a wall; each costs its timeout
		}
	}
}
