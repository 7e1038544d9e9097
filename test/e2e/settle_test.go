package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// settle waits until every machine's mesh knows all n tasks. An ask that gets no answer costs a second, so that the message tells one
// lost connection from a host that nobody reaches.
func settle(t *testing.T, c *cluster, port, n int) {
	t.Helper()
	hosts, err := c.lab.Hosts()
	c.must(err)
	for _, host := range hosts {
		var seen []string
		began := time.Now()
		until(t, host+" balances over all tasks", 10*time.Second, func() string {
			by := map[string]int{}
			for range 2 * n {
				a, err := soon(t.Context(), published(c.address(host), port))
				if err != nil {
					seen = append(seen, fmt.Sprintf("after %s, %d answered: %v", time.Since(began).Round(time.Millisecond), len(by), err))
					break
				}
				by[a.hostname]++
			}
			if len(by) == n {
				return ""
			}
			if time.Since(began) > 10*time.Second {
				c.tellPath(port)
			}
			return fmt.Sprintf("%d of %d tasks answer: %v; before:\n%s", len(by), n, by, strings.Join(seen, "\n"))
		})
	}
}

// soon asks, and takes no answer within a second as none.
func soon(ctx context.Context, address string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return ask(ctx, address)
}

// tellPath logs what the kernels know of the way to a port.
func (c *cluster) tellPath(port int) {
	c.t.Helper()
	hosts, err := c.lab.Hosts()
	c.must(err)
	script := fmt.Sprintf("ip neigh; ip rule; ip route show table all type unicast; bridge fdb show | grep dst; conntrack -L -p tcp --dport %d 2>&1 | grep -v TIME_WAIT", port)
	for _, host := range hosts {
		out, _, _ := c.try(host, "sh", "-c", script)
		c.t.Logf("the kernel of %s:\n%s", host, out)
	}
}
