package lan

import (
	"net/netip"
	"strings"
	"testing"
)

func TestPartitionDropsBothWays(t *testing.T) {
	rules := Faults{Partitions: [][][]string{{{"m1", "m2"}, {"w1"}}}, Isolated: []string{"w2"}}.rules()
	for _, want := range []string{
		`iifname { "m1", "m2" } oifname { "w1" } drop`,
		`iifname { "w1" } oifname { "m1", "m2" } drop`,
		`iifname "w2" drop`, `oifname "w2" drop`,
	} {
		if !strings.Contains(rules, want+"\n") {
			t.Errorf("no rule %s in\n%s", want, rules)
		}
	}
	if healthy := (Faults{}).rules(); strings.Contains(healthy, "drop") {
		t.Errorf("without faults there is a drop:\n%s", healthy)
	}
}

func TestRangeAvoidsWhatIsTaken(t *testing.T) {
	r := nth(300)
	if r.IPv4.String() != "198.19.44.0/24" {
		t.Errorf("range 300 is %s", r.IPv4)
	}
	for taken, want := range map[string]bool{
		"198.19.44.0/28": true, "198.18.0.0/15": true, "198.19.45.0/24": false, "10.0.0.0/8": false,
		r.IPv6.String(): true, "fe80::/64": false,
	} {
		if got := overlaps(r, []netip.Prefix{netip.MustParsePrefix(taken)}); got != want {
			t.Errorf("%s overlaps: %v, want %v", taken, got, want)
		}
	}
	if got := r.Addresses(11)[0].String(); got != "198.19.44.11/24" {
		t.Errorf("member 11 is %s", got)
	}
}
