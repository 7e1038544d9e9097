package constraint_test

import (
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/constraint"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

func node() *typesv1.Node {
	return &typesv1.Node{
		Meta: &typesv1.Meta{Id: "m1abc"},
		Spec: &typesv1.NodeSpec{Role: typesv1.NodeRole_NODE_ROLE_MANAGER,
			Annotations: &typesv1.Annotations{Labels: map[string]string{"disk": "SSD", "empty": "", "Zone": "a,b"}}},
		Status: &typesv1.NodeStatus{Addresses: []string{"10.1.2.3", "fd00::3"}, Description: &typesv1.NodeDescription{
			Hostname: "Host-1", Platform: &typesv1.Platform{Os: "linux", Architecture: "x86_64"},
			Labels: map[string]string{"rack": "r7"}}},
	}
}

// TestMatch: every key and every operator, with what is there and what is not.
func TestMatch(t *testing.T) {
	for text, want := range map[string]bool{
		"node.id == m1abc":                        true,
		"node.id==M1ABC":                          true, // values have no case
		"node.id != m1abc":                        false,
		"node.hostname == host-1":                 true,
		"node.hostname in (other, host-1)":        true,
		"node.hostname in (other)":                false,
		"node.role == manager":                    true,
		"node.role != manager":                    false,
		"node.ip == 10.1.2.3":                     true,
		"node.ip == 10.1.0.0/16":                  true,
		"node.ip != 10.1.0.0/16":                  false,
		"node.ip in (10.2.0.0/16, fd00::/8)":      true,
		"node.platform.os == linux":               true,
		"node.platform.arch == amd64":             true, // whatever the kernel calls it
		"node.platform.arch in (arm64, s390x)":    false,
		"node.labels.disk == ssd":                 true,
		"node.labels.Disk == ssd":                 false, // names of labels have case
		"node.labels.disk exists":                 true,
		"node.labels.empty exists":                true,
		"node.labels.gpu exists":                  false,
		"node.labels.gpu != a":                    true, // a label that is not there differs from every value
		"node.labels.gpu == a":                    false,
		"node.labels.Zone == a,b":                 true,
		"engine.labels.rack == r7":                true,
		"engine.labels.disk exists":               false, // what a person says of a node is no engine label
		"  node.labels.disk   in   ( hdd , ssd )": true,
	} {
		c, err := constraint.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := c.Match(node()); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// TestRefused: what makes no sense is refused with words that say what would.
func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "none of the forms",
		"node.labels.disk":                  "none of the forms",
		"node.labels.disk = ssd":            "none of the forms",
		"node.labels.disk in ssd":           "none of the forms",
		"node.label.disk == ssd":            "unknown key",
		"node.labels. == ssd":               "names no label",
		"node.labels.disk ==":               "does not say with what",
		"node.labels.disk in (a,)":          "does not say with what",
		"node.labels.disk === ssd":          "does not say with what",
		"== ssd":                            "no key",
		"node.ip == ten":                    "no address and no CIDR",
		"node.role == boss":                 "manager or worker",
		"node.platform.version in (6.1, 7)": "unknown key",
	} {
		_, err := constraint.Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", text, err, want)
		}
	}
}
