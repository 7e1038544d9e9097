package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// echo sends a line to an echo server and wants it back.
func echo(network, address string) error {
	conn, err := net.DialTimeout(network, address, 2*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	return echoOn(conn)
}

// echoOn is one line there and back.
func echoOn(conn net.Conn) error {
	line := fmt.Sprintf("hello from %s\n", conn.LocalAddr())
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(line)); err != nil {
		return err
	}
	got, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && got != line {
		err = fmt.Errorf("came back as %q", got)
	}
	return err
}

// Every machine answers on a published port, TCP and UDP, IPv4, IPv6 and loopback, as long as the service publishes it.
func TestPublishedPorts(t *testing.T) {
	c := bring(t, 1, 2)
	image := c.image("1.0.0")
	c.shoal("service", "create", "--name", "echo", "--replicas", "2", "-p", "30100:8001/tcp", "-p", "30100:8002/udp", image)
	c.tell([]step{
		{"TCP and UDP by every address of every machine", func(t *testing.T, c *cluster) {
			for network, port := range map[string]int{"tcp": 30100, "udp": 30100} {
				c.everywhere(network, port)
			}
		}},
		{"node inspect tells what carries them", func(t *testing.T, c *cluster) {
			for _, host := range []string{"m1", "w1", "w2"} {
				if got := c.shoal("node", "inspect", "-f", "{{.Description.Dataplane}}", host); got != "kernel" {
					t.Errorf("%s: %q", host, got)
				}
			}
		}},
		{"a port that speaks PROXY protocol tells the task its client first", func(t *testing.T, c *cluster) {
			c.shoal("service", "create", "--name", "told", "-p", "published=30400,target=8001,proxy-protocol=v2", image)
			for _, host := range []string{"m1", "w1", "w2"} {
				until(t, host+" speaks it", 5*time.Second, func() string { return words(hearProxied(published(c.address(host), 30400))) })
			}
			c.shoal("service", "rm", "told")
		}},
		{"a port that is taken is refused with its holder's name", func(t *testing.T, c *cluster) {
			c.refused([]string{"30100", "echo"}, "service", "create", "--name", "late", "-p", "30100:8000", image)
			c.refused([]string{"30100", "echo"}, "service", "create", "--name", "late", "-p", "30100:8000/udp", image)
		}},
		{"an update adds a port and touches no container", func(t *testing.T, c *cluster) {
			before := c.tasks("echo", true)
			c.shoal("service", "update", "--publish-add", "30200:8000", "echo")
			for _, host := range []string{"m1", "w1", "w2"} {
				until(t, host+" answers on the new port", 5*time.Second, func() string {
					_, err := ask(t.Context(), published(c.address(host), 30200))
					return words(err)
				})
			}
			c.everywhere("tcp", 30100)
			c.sameTasks("echo", before)
		}},
		{"an update removes a port", func(t *testing.T, c *cluster) {
			before := c.tasks("echo", true)
			c.shoal("service", "update", "--publish-rm", "8000", "echo")
			c.closedEverywhere("tcp", 30200)
			c.everywhere("udp", 30100)
			c.sameTasks("echo", before)
		}},
		{"a process that holds the port on one machine keeps it there alone", portHeld},
		{"after service rm it is closed everywhere", func(t *testing.T, c *cluster) {
			c.shoal("service", "rm", "echo")
			c.closedEverywhere("tcp", 30100)
			c.closedEverywhere("udp", 30100)
			// And free again at once for whoever names it.
			c.shoal("service", "create", "--name", "next", "-p", "30100:8001", image)
			c.everywhere("tcp", 30100)
		}},
	})
}

// hearProxied asks an echo server for what it heard: the header that names this client, and nothing else before its words.
func hearProxied(address string) error {
	conn, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	got := make([]byte, 12+4+12+5) // signature; version, family and length; IPv4 addresses and ports; words
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	own := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	want := fmt.Sprintf("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c%s", own.Addr().Unmap().AsSlice())
	if !strings.HasPrefix(string(got), want) || !strings.HasSuffix(string(got), "hello") || int(got[24])<<8|int(got[25]) != int(own.Port()) {
		return fmt.Errorf("the task heard %q", got)
	}
	return nil
}

// portHeld: the machine whose port somebody else has says so in its log and health, and serves it when it is free again.
func portHeld(t *testing.T, c *cluster) {
	stranger := c.hold("w1", 30300)
	c.shoal("service", "create", "--name", "held", "-p", "30300:8001", c.image("1.0.0"))
	for _, host := range []string{"m1", "w2"} {
		until(t, host+" answers", 5*time.Second, func() string { return words(echo("tcp", published(c.address(host), 30300))) })
	}
	until(t, "w1 says who holds the port", 5*time.Second, func() string {
		out := c.on("w1", "sh", "-c", "cat /var/log/shoal-meshproxy.log")
		if !strings.Contains(out, "30300") || !strings.Contains(out, "held by") {
			return "its log does not say it"
		}
		return ""
	})
	stranger()
	until(t, "w1 answers once the port is free", 15*time.Second, func() string { return words(echo("tcp", published(c.address("w1"), 30300))) })
	c.shoal("service", "rm", "held")
}

// hold has this test listen on a machine's port, as a stranger, until the returned function is called.
func (c *cluster) hold(host string, port int) (release func()) {
	c.t.Helper()
	var listener net.Listener
	c.must(within(c.space(host, 0), func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}))
	return func() { _ = listener.Close() }
}

// everywhere wants an echo by each machine's addresses and its loopback.
func (c *cluster) everywhere(network string, port int) {
	c.t.Helper()
	status, err := c.lab.Status(c.t.Context())
	c.must(err)
	for _, h := range status.Hosts {
		for _, address := range h.Addresses {
			until(c.t, network+" echo by "+address, 5*time.Second, func() string { return words(echo(network, published(address, port))) })
		}
		for _, loopback := range []string{"127.0.0.1", "::1"} {
			script := fmt.Sprintf("exec 3<>/dev/%s/%s/%d && echo hello >&3 && head -1 <&3", network, loopback, port)
			if out, stderr, _ := c.try(h.Name, "timeout", "3", "bash", "-c", script); strings.TrimSpace(out) != "hello" {
				c.t.Errorf("%s echo on %s by %s: %q %s", network, h.Name, loopback, out, stderr)
			}
		}
	}
}

func (c *cluster) closedEverywhere(network string, port int) {
	c.t.Helper()
	hosts, err := c.lab.Hosts()
	c.must(err)
	for _, host := range hosts {
		until(c.t, host+" closes the port", 10*time.Second, func() string {
			if echo(network, published(c.address(host), port)) == nil {
				return "it still echoes"
			}
			for _, line := range lines(c.on(host, "ss", "-Hltun")) {
				if strings.HasPrefix(line, network) && strings.Contains(line, fmt.Sprintf(":%d ", port)) {
					return line
				}
			}
			return ""
		})
	}
}

// sameTasks wants the very tasks of before.
func (c *cluster) sameTasks(service string, before []taskRow) {
	c.t.Helper()
	if got := c.tasks(service, true); !slices.Equal(taskIDs(got), taskIDs(before)) {
		c.t.Errorf("tasks are %v, were %v", taskIDs(got), taskIDs(before))
	}
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
