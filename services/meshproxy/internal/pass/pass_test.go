package pass_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/testx/nstest"
	"github.com/shoalproject/shoal/services/meshproxy/internal/pass"
)

// dockerd's rules, as Docker 20.10 makes them.
const dockerd = `
for t in iptables ip6tables; do
$t -P FORWARD DROP
$t -N DOCKER; $t -N DOCKER-ISOLATION-STAGE-1; $t -N DOCKER-USER
$t -A FORWARD -j DOCKER-USER; $t -A FORWARD -j DOCKER-ISOLATION-STAGE-1
$t -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
$t -A FORWARD -o docker0 -j DOCKER; $t -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
$t -A DOCKER-ISOLATION-STAGE-1 -j RETURN; $t -A DOCKER-USER -j RETURN
done`

// TestBesideDocker: our links pass a chain whose policy is to drop, once, behind what others have said; flushed, they are back
// with the next look; nothing of others is touched, and nothing of ours stays.
func TestBesideDocker(t *testing.T) {
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("needs iptables; on Debian: tools/make/deps")
	}
	nstest.Inside(t, func() {
		if n, err := pass.Open(); n != 0 || err != nil {
			t.Errorf("without another firewall: %d rules, %v", n, err)
		}
		nstest.Sh(t, "iptables -A FORWARD -j ACCEPT")
		if n, err := pass.Open(); n != 0 || err != nil {
			t.Errorf("where the policy is to accept: %d rules, %v", n, err)
		}
		nstest.Sh(t, "iptables -F FORWARD"+dockerd)
		list := func() string { return nstest.Sh(t, "iptables -S; ip6tables -S") }
		before := list()
		for range 2 {
			if _, err := pass.Open(); err != nil {
				t.Error(err)
			}
		}
		with := list()
		for _, rule := range []string{"-A FORWARD -i shoal+ -m comment --comment shoal -j ACCEPT", "-A FORWARD -o shoal+ -m comment --comment shoal -j ACCEPT"} {
			if n := strings.Count(with, rule+"\n"); n != 2 {
				t.Errorf("%q is there %d times, want once for each family:\n%s", rule, n, with)
			}
		}
		if !strings.HasSuffix(strings.TrimSpace(nstest.Sh(t, "iptables -S FORWARD")), "-o shoal+ -m comment --comment shoal -j ACCEPT") {
			t.Errorf("ours are not the last:\n%s", with)
		}
		nstest.Sh(t, "iptables -A FORWARD -s 192.0.2.7 -j REJECT") // somebody's, which ours must not shadow
		if n, err := pass.Open(); n != 2 || err != nil {
			t.Errorf("after a rule was added behind ours: %d rules, %v; want those of one family", n, err)
		}
		if end := strings.TrimSpace(nstest.Sh(t, "iptables -S FORWARD")); !strings.HasSuffix(end, "-o shoal+ -m comment --comment shoal -j ACCEPT") ||
			strings.Count(end, "shoal+") != 2 {
			t.Errorf("after a rule was added behind ours:\n%s", end)
		}
		nstest.Sh(t, "iptables -F FORWARD; ip6tables -D FORWARD -i shoal+ -m comment --comment shoal -j ACCEPT")
		if n, err := pass.Open(); n != 4 || err != nil {
			t.Errorf("after a flush and a removal: %d rules, %v; want both of both", n, err)
		}
		if err := pass.Close(); err != nil {
			t.Error(err)
		}
		if left := list(); strings.Contains(left, "shoal") || !strings.Contains(left, "-A DOCKER-USER -j RETURN") {
			t.Errorf("left:\n%s\nbefore it was:\n%s", left, before)
		}
	})
}
