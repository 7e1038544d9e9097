package e2e

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// What people ask when the network does not do what they want: each fault that is made is found and named, with the machines
// that it is between, and a lab that is well has none.
func TestDiagnosis(t *testing.T) {
	c := bring(t, 1, 2)
	c.shoal("service", "create", "--name", "micro", "-p", "8000", "--replicas", "3", c.image("1.0.0"))
	settle(t, c, 30000, 3)
	c.tell([]step{
		{"doctor network finds each fault", faultsNamed},
		{"a trace shows what is in the kernel", traced},
		{"who is connected", connected},
	})
}

// networkFault is a line of `shoal doctor network --format json`.
type networkFault struct{ Node, Peer, Grade, Check, What, Fix string }

// doctor are the findings that are not well, as "node peer check".
func (c *cluster) doctor() (out []string, all []networkFault) {
	c.t.Helper()
	stdout, stderr, code := c.try("m1", "shoal", "doctor", "network", "--quiet", "--format", "json")
	for _, line := range lines(stdout) {
		var f networkFault
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			c.t.Fatalf("doctor network: %v\n%s%s", err, stdout, stderr)
		}
		if f.Check == "br_netfilter" {
			continue // whether the machine below has it on is its own
		}
		all = append(all, f)
		out = append(out, strings.Join(strings.Fields(f.Node+" "+f.Peer+" "+f.Check), " "))
	}
	if faulty := slices.ContainsFunc(all, func(f networkFault) bool { return f.Grade == "fault" }); (code == 1) != faulty {
		c.t.Errorf("exit code %d with %v\n%s", code, out, stderr)
	}
	return out, all
}

func faultsNamed(t *testing.T, c *cluster) {
	// The lab is well when its machines know each other.
	until(t, "nothing is wrong", 20*time.Second, func() string {
		found, _ := c.doctor()
		return strings.Join(found, ", ")
	})
	const table = "nft add table inet faulty; nft add chain inet faulty in '{ type filter hook input priority -10; }'; "
	for _, f := range []struct{ name, make, mend, want string }{
		{"a firewall holds the tunnel back", table + "nft add rule inet faulty in udp dport 8477 drop", "nft delete table inet faulty", "m1 w2 tunnel, w1 w2 tunnel, w2 m1 tunnel, w2 w1 tunnel"},
		{"the path carries 1,400 bytes", table + "nft add rule inet faulty in udp dport 8477 meta length '>' 1400 drop", "nft delete table inet faulty", "m1 w2 mtu, w1 w2 mtu"},
		{"a port is closed", table + "nft add rule inet faulty in tcp dport 2385 drop", "nft delete table inet faulty", "m1 w2 port meshproxy, w1 w2 port meshproxy"},
		{"sources are filtered", "sysctl -qw net.ipv4.conf.shoal-mesh.rp_filter=1", "sysctl -qw net.ipv4.conf.shoal-mesh.rp_filter=2", "w2 rp_filter"},
		{"another firewall forwards nothing", "nft add table inet faulty; nft add chain inet faulty fw '{ type filter hook forward priority 10; policy drop; }'", "nft delete table inet faulty", "w2 forward policy"},
		{"a route overlaps", "ip route add 10.190.0.0/24 dev lo", "ip route del 10.190.0.0/24 dev lo", "w2 routes"},
	} {
		c.on("w2", "sh", "-c", f.make)
		found, all := c.doctor()
		c.on("w2", "sh", "-c", f.mend)
		if got := strings.Join(found, ", "); got != f.want {
			t.Errorf("%s: found %q, want %q\n%+v", f.name, got, f.want, all)
		}
		for _, one := range all {
			if one.What == "" || one.Fix == "" {
				t.Errorf("%s: %+v does not say what, or what to do", f.name, one)
			}
		}
	}
}

// A trace shows the port's elements on each machine; what somebody takes out of the kernel is marked until it is back.
func traced(t *testing.T, c *cluster) {
	out := c.shoal("network", "trace", "micro")
	for _, want := range []string{"m1\n", "w1\n", "w2\n", "tcp/30000: the kernel leads it", "inet shoal ports4: tcp 30000", "> micro.1", "> micro.3"} {
		if !strings.Contains(out, want) {
			t.Errorf("the trace lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "MISSING") {
		t.Errorf("something is missing:\n%s", out)
	}
	if out := c.shoal("network", "trace", "--from", "w1", "micro"); strings.Contains(out, "m1\n") || !strings.Contains(out, "w1\n") {
		t.Errorf("from w1 alone:\n%s", out)
	}
}

// A connection that is open is told where it came in, with the task that it was led to.
func connected(t *testing.T, c *cluster) {
	conn, err := net.Dial("tcp", published(c.address("w1"), 30000))
	c.must(err)
	defer conn.Close()
	until(t, "the connection is told", 10*time.Second, func() string {
		out := c.shoal("top", "connections", "--by", "connection", "--filter", "ingress=w1", "--filter", "state=established", "--format", "{{.Client}} {{.Task}} {{.Carrier}}")
		for _, line := range lines(out) {
			if strings.HasPrefix(line, conn.LocalAddr().String()+" micro.") && strings.HasSuffix(line, " kernel") {
				return ""
			}
		}
		return out
	})
	if out := c.shoal("top", "connections", "--by", "service", "-n", "1", "--format", "{{.Service}}"); out != "micro" {
		t.Errorf("the service with most connections is %q", out)
	}
}
