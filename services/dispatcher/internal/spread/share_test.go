package spread

import (
	"fmt"
	"strings"
	"testing"
)

func taking(loads ...int) []Dispatcher {
	var out []Dispatcher
	for i, n := range loads {
		out = append(out, Dispatcher{ID: fmt.Sprintf("d%d", i), Weight: 10, Load: n})
	}
	return out
}

func TestExcess(t *testing.T) {
	for _, c := range []struct {
		name        string
		have, total int
		all         []Dispatcher
		want        int
	}{
		{"alone", 30, 30, taking(30), 0},
		{"nobody takes machines", 30, 30, nil, 0},
		{"fair", 15, 30, taking(15, 15), 0},
		{"a little more than its share", 110, 200, taking(110, 90), 0},
		{"more than its share", 111, 200, taking(111, 89), 11},
		{"another has come", 200, 200, taking(200, 0), 100},
		{"three for two", 2, 3, taking(2, 1), 0},
		{"three for three", 2, 3, taking(2, 1, 0), 1},
		{"four for three, one with none", 2, 4, taking(2, 2, 0), 1},
		{"four for three, shared out", 2, 4, taking(2, 1, 1), 0},
		{"one for two", 1, 1, taking(1, 0), 0},
		{"a third of the weight", 10, 30, []Dispatcher{{ID: "d0", Weight: 5}, {ID: "d1", Weight: 10}}, 0},
		{"it takes none, others do", 7, 30, taking(7, 23)[1:], 7},
	} {
		if got := Excess(c.have, c.total, "d0", c.all); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// Each goes to the emptiest, for its weight, and never back.
func TestTo(t *testing.T) {
	all := []Dispatcher{{ID: "d0", Weight: 10, Load: 9}, {ID: "d1", Weight: 10, Load: 1}, {ID: "d2", Weight: 20, Load: 0}}
	if got := strings.Join(To(6, "d0", all), " "); got != "d2 d2 d1 d2 d2 d1" {
		t.Errorf("to %s", got)
	}
	if got := To(2, "d0", all[:1]); got != nil {
		t.Errorf("with nobody else: to %v", got)
	}
	if all[1].Load != 1 {
		t.Error("the caller's list was changed")
	}
}
