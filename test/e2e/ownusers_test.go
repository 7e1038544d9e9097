package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// ownUsers: containers whose root is no user of their machine have networks, ports, files and commands as all have, and each has ids that
// no other has.
func ownUsers(t *testing.T, c *cluster) {
	c.refused([]string{"privileges.host_network: needs the node's user ids"}, "service", "create", "--name", "neither", "--userns", "private", "--network", "host", c.image("1.0.0"))
	c.write("m1", "/root/own-word", "of their own")
	c.shoal("secret", "create", "own-word", "/root/own-word")
	c.shoal("network", "create", "-d", "overlay", "own-net")
	c.shoal("service", "create", "--name", "own", "--replicas", "3", "--userns", "private", "--network", "own-net", "-p", "30877:8000",
		"--secret", "source=own-word,target=word,uid=1000,mode=0400", "--mount", "source=own-data,target=/data", c.image("1.0.0"))
	s := c.full("own", 3)
	seen := map[string]string{}
	for _, task := range runningOf(s, "own") {
		id := task.GetMeta().GetId()
		got := strings.Fields(c.beside(s, id, `p=/proc/$1; awk '{ print $2 }' $p/uid_map; stat -c %u $p; stat -c %u $p/root/data $p/root/run/secrets/word; ls $p/root/sys/class/net | grep -c eth1`))
		if len(got) != 5 || got[0] == "0" || got[0] != got[1] || got[0] != got[2] || got[4] != "1" {
			t.Fatalf("%s: %v", id, got)
		}
		at := task.GetDecided().GetNodeId() + " " + got[0]
		if other := seen[at]; other != "" {
			t.Errorf("%s and %s have the same user ids", id, other)
		}
		seen[at] = id
		if first, word := number(t, got[0]), number(t, got[3]); word != first+1000 {
			t.Errorf("%s: its ids begin at %d, its secret belongs to %d", id, first, word)
		}
	}
	boxes := c.boxes("own")
	for _, to := range boxes[1:] {
		c.reaches(boxes[0], to.network, true)
	}
	for _, host := range []string{"m1", "w1"} {
		until(t, host+" answers", 5*time.Second, func() string {
			_, err := ask(t.Context(), published(c.address(host), 30877))
			return unless(fmt.Sprint(err), "<nil>")
		})
	}
	c.shoal("service", "rm", "own")
	until(t, "nothing of them is left", 20*time.Second, func() string {
		var left []string
		for _, host := range []string{"m1", "w1"} {
			out, _, _ := c.try(host, "sh", "-c", "ls /run/shoal/userns; ls -d /run/shoal/volumes/*/layer* 2>/dev/null")
			left = append(left, strings.Fields(out)...)
		}
		return strings.Join(left, " ")
	})
}

func number(t *testing.T, text string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
