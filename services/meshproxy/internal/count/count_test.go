package count_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/services/meshproxy/internal/count"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/space"
)

// Counts add up over the kernel, the containers and user space, and only rise: not from what was counted before the process
// began, nor when a table is made anew, nor when a container goes.
func TestCountsRise(t *testing.T) {
	web := kernel.Slot{Set: "counted4", Key: "tcp 30000"}
	known, broken := map[kernel.Slot]uint64{web: 1000, {Set: "counted4", Key: "tcp 1"}: 7}, error(nil)
	var spaces []space.Count
	forwarded := map[string]uint64{}
	b := count.New(42, count.Sources{
		Kernel:    func() (map[kernel.Slot]uint64, error) { return known, broken },
		Counted:   func() map[kernel.Slot]string { return map[kernel.Slot]string{web: "web"} },
		Spaces:    func() []space.Count { return spaces },
		Forwarder: func() map[string]uint64 { return forwarded },
	})
	in := func(container string, n uint64) space.Count {
		return space.Count{Container: container, VIP: netip.MustParseAddr("10.0.0.2"), Service: "web", Count: n}
	}
	expect := func(what, want string) {
		t.Helper()
		r, err := b.Read()
		var got []string
		for _, s := range r.GetServices() {
			got = append(got, fmt.Sprintf("%s %d", s.GetServiceId(), s.GetConnections()))
		}
		if text := strings.Join(got, ", "); text != want || err != nil || r.GetProcess() != 42 {
			t.Errorf("%s: %q of process %d, %v; want %q", what, text, r.GetProcess(), err, want)
		}
	}
	expect("what was before does not count", "")
	known[web] = 1010
	expect("the kernel's", "web 10")
	spaces = []space.Count{in("t1.0", 5), in("t2.0", 3)}
	forwarded["web"], forwarded["api"] = 2, 4
	expect("all together", "api 4, web 20")
	spaces = []space.Count{in("t1.0", 6)}
	expect("a container goes", "api 4, web 21")
	known[web], spaces[0].Count = 1, 2
	expect("tables are made anew", "api 4, web 24")
	broken = errors.New("no answer")
	if _, err := b.Read(); err == nil {
		t.Error("the kernel does not answer, and it is not told")
	}
	broken, known[web] = nil, 3
	expect("nothing is lost by that", "api 4, web 26")
}
