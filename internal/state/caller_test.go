package state_test

import (
	"testing"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Each form of a caller says whom it means, and is stored in one way.
func TestCaller(t *testing.T) {
	front := &typesv1.Service{Spec: &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: "front", Labels: map[string]string{"tier": "edge", "bare": ""}}}}
	for _, tc := range []struct {
		text, stored string
		is           bool
		fault        string
	}{
		{text: "front", stored: "front", is: true},
		{text: "back", stored: "back"},
		{text: "label:tier=edge", stored: "label:tier=edge", is: true},
		{text: "label:tier=core", stored: "label:tier=core"},
		{text: "label:tier", stored: "label:tier", is: true},
		{text: "label:bare=", stored: "label:bare=", is: true},
		{text: "label:none", stored: "label:none"},
		{text: "192.0.2.7", stored: "192.0.2.7/32"},
		{text: "2001:db8::/32", stored: "2001:db8::/32"},
		{text: "::", stored: "::/128"},
		{text: "0.0.0.0/0", stored: "0.0.0.0/0"},
		{text: "192.0.2.7/24", fault: "192.0.2.7/24 has bits behind its prefix; 192.0.2.0/24 is meant?"},
		{text: "a/b", fault: `"a/b" is no service, no label such as label:tier=front, and no range such as 192.0.2.0/24`},
		{text: "fe80::1%eth0", fault: `"fe80::1%eth0" is no service, no label such as label:tier=front, and no range such as 192.0.2.0/24`},
		{text: "label:", fault: `"label:" names no label; write label:tier=front`},
		{text: "label:=x", fault: `"label:=x" names no label; write label:tier=front`},
		{text: "", fault: "names nobody"},
	} {
		c, err := state.ParseCaller(tc.text)
		if err != nil {
			if err.Error() != tc.fault {
				t.Errorf("%q: %v, want %q", tc.text, err, tc.fault)
			}
			continue
		}
		if c.String() != tc.stored || c.Is(front) != tc.is || tc.fault != "" {
			t.Errorf("%q: %s, means front: %t; want %s, %t, fault %q", tc.text, c, c.Is(front), tc.stored, tc.is, tc.fault)
		}
	}
}
