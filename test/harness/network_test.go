package harness_test

import (
	"net"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/harness"
)

const settle = 5 * time.Second

// echo exits with 0 if the echo at address $1 answers.
const echo = `exec 3<>"/dev/tcp/$1/9000" && echo x >&3 && read -r answer <&3 && test "$answer" = x`

// reach says whether a host reaches another one's echo on every address that the other has, and whether on some.
func reach(t *testing.T, lab *harness.Lab, from, to string) (every, some bool) {
	t.Helper()
	status, err := lab.Status(t.Context())
	do(t, err)
	every = true
	for _, host := range status.Hosts {
		if host.Name != to {
			continue
		}
		for _, address := range host.Addresses {
			_, _, code, err := lab.Exec(t.Context(), from, "timeout", "0.4", "bash", "-c", echo, "bash", address)
			do(t, err)
			every, some = every && code == 0, some || code == 0
		}
	}
	return every, some
}

func connected(t *testing.T, lab *harness.Lab, a, b string) {
	t.Helper()
	for _, pair := range [][2]string{{a, b}, {b, a}} {
		eventually(t, settle, pair[0]+" reaches "+pair[1]+" by IPv4 and IPv6", func() bool {
			every, _ := reach(t, lab, pair[0], pair[1])
			return every
		})
	}
}

func severed(t *testing.T, lab *harness.Lab, a, b string) {
	t.Helper()
	for _, pair := range [][2]string{{a, b}, {b, a}} {
		if _, some := reach(t, lab, pair[0], pair[1]); some {
			t.Errorf("%s still reaches %s", pair[0], pair[1])
		}
	}
}

func listenEverywhere(t *testing.T, lab *harness.Lab) {
	t.Helper()
	for _, host := range []string{"m1", "w1", "w2"} {
		do(t, lab.Start(t.Context(), host, "gateway"))
	}
}

func partitions(t *testing.T, lab *harness.Lab) {
	listenEverywhere(t, lab)
	connected(t, lab, "m1", "w1")
	do(t, lab.Partition(t.Context(), []string{"m1"}, []string{"w1", "w2"}))
	severed(t, lab, "m1", "w1")
	severed(t, lab, "m1", "w2")
	connected(t, lab, "w1", "w2")
	do(t, lab.Heal(t.Context()))
	connected(t, lab, "m1", "w1")
	connected(t, lab, "m1", "w2")
}

func cutsOff(t *testing.T, lab *harness.Lab) {
	listenEverywhere(t, lab)
	address, err := lab.Address("w1")
	do(t, err)
	outside := net.JoinHostPort(address, "9000")
	eventually(t, settle, "the outer machine reaches w1", func() bool { return dial(outside) == nil })

	do(t, lab.Isolate(t.Context(), "w1"))
	severed(t, lab, "m1", "w1")
	if dial(outside) == nil {
		t.Error("the outer machine still reaches an isolated host")
	}
	connected(t, lab, "m1", "w2")
	do(t, lab.Heal(t.Context()))
	connected(t, lab, "m1", "w1")

	do(t, lab.Unplug(t.Context(), "w1"))
	if got := on(t, lab, 0, "w1", "cat", "/sys/class/net/eth0/carrier"); got != "0\n" {
		t.Errorf("an unplugged host's carrier is %q", got)
	}
	severed(t, lab, "m1", "w1")
	do(t, lab.Plug(t.Context(), "w1"))
	connected(t, lab, "m1", "w1")
}
