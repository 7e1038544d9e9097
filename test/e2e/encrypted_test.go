package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// wireCounters counts what leaves a machine by its wire: tunnels' packets in the clear, and WireGuard's.
const wireCounters = `table inet wirecount {
	counter clear { }
	counter sealed { }
	chain out {
		type filter hook postrouting priority 300
		oifname != "shoal*" udp dport 8477 counter name clear
		oifname != "shoal*" udp dport { 8478, 8479 } counter name sealed
	}
}`

// encrypted has containers of three machines speak over an encrypted network: nothing of it is on the wire in the clear, no request fails
// while every machine makes a new key and a meshproxy is killed, and the machines say what encrypts.
func (c *cluster) encrypted(image string) {
	t := c.t
	c.shoal("network", "create", "-d", "overlay", "--opt", "encrypted", "vault")
	if got := c.shoal("network", "inspect", "-f", "{{.Options.encrypted}}", "vault"); got != "true" {
		t.Errorf("network inspect says encrypted=%q", got)
	}
	c.shoal("service", "create", "--name", "safe", "--replicas", "3", "--network", "vault", image)
	safe := c.boxes("safe")
	if len(safe) != 3 {
		t.Fatalf("one task on each machine is what this test stands on: %+v", safe)
	}
	from, to := safe[1], safe[2]
	c.on(from.host, "bash", "-c", "nft -f - <<'E'\n"+wireCounters+"\nE")
	defer c.on(from.host, "nft", "delete", "table", "inet", "wirecount")
	for _, a := range safe {
		for _, b := range safe {
			c.reaches(a, b.network, true)
		}
	}
	count := func(name string) int {
		f := strings.Fields(c.on(from.host, "nft", "list", "counter", "inet", "wirecount", name))
		for i, word := range f {
			if word == "packets" && i+1 < len(f) {
				n, _ := strconv.Atoi(f[i+1])
				return n
			}
		}
		return -1
	}
	if plain, sealed := count("clear"), count("sealed"); plain != 0 || sealed <= 0 {
		t.Errorf("%d packets of tunnels left %s in the clear, %d encrypted", plain, from.host, sealed)
	}
	before := c.shoal("node", "inspect", "-f", "{{.Description.Tunnel}} {{len .Description.TunnelKeys}}", from.host)
	if before != "userspace 1" && before != "kernel 1" {
		t.Errorf("node inspect says %q of what encrypts", before)
	}

	ended := make(chan string, 1)
	const load = `end=$((SECONDS+14)); n=0; while [ $SECONDS -lt $end ]; do curl -sS -o /dev/null --max-time 5 http://%s:8000/ || echo failed; n=$((n+1)); done; echo asked $n`
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, words, _, err := c.lab.Exec(ctx, from.host, "nsenter", "-n", "-t", fmt.Sprint(from.pid), "--", "bash", "-c", fmt.Sprintf(load, to.network))
		ended <- fmt.Sprint(out, words, err)
	}()
	c.shoal("cluster", "update", "--rotate-tunnel-keys")
	until(t, "every machine has told its next key", 12*time.Second, func() string {
		for _, b := range safe {
			if got := c.shoal("node", "inspect", "-f", "{{len .Description.TunnelKeys}}", b.host); got != "2" {
				return b.host + " has told " + got
			}
		}
		return ""
	})
	c.must(c.lab.Kill(t.Context(), from.host, "shoal-meshproxy"))
	if got := <-ended; strings.Contains(got, "failed") || !strings.Contains(got, "asked") || strings.Contains(got, "asked 0") {
		t.Errorf("while keys were changed and a meshproxy was killed:\n%s", got)
	} else {
		t.Logf("while keys were changed and a meshproxy was killed: %s", strings.TrimSpace(got))
	}
	if plain := count("clear"); plain != 0 {
		t.Errorf("%d packets of tunnels left %s in the clear", plain, from.host)
	}
	c.shoal("service", "rm", "safe")
}
