package doctor_test

import (
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/services/meshproxy/internal/doctor"
)

// What is tried is tried where nobody sees it.
func TestLookLeavesNoTrace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	before, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var checks []string
	for _, f := range doctor.Look(t.Context()) {
		checks = append(checks, f.Check)
		if f.Grade == finding.Fault {
			t.Errorf("this kernel runs the other tests, but %+v", f)
		}
	}
	if got := strings.Join(checks, " "); !strings.HasPrefix(got, "vxlan bridge veth nftables bridge filter nat conntrack ipv6 wireguard") {
		t.Errorf("looked at %s", got)
	}
	after, err := netlink.LinkList()
	if err != nil || len(after) != len(before) {
		t.Errorf("%d links were, %d are, %v", len(before), len(after), err)
	}
}
