package tables

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// TestListIsAskedForAgain: a list that changes while it is told is asked for again, at once, and not for ever.
func TestListIsAskedForAgain(t *testing.T) {
	asked := 0
	list := func(interrupted int) func() ([]int, error) {
		asked = 0
		return func() ([]int, error) {
			if asked++; asked <= interrupted {
				return []int{1}, netlink.ErrDumpInterrupted
			}
			return []int{1, 2}, nil
		}
	}
	if got, err := whole(list(3)); len(got) != 2 || err != nil || asked != 4 {
		t.Errorf("after %d times: %v, %v", asked, got, err)
	}
	if _, err := whole(list(1000)); err == nil || asked != tries {
		t.Errorf("gives up after %d times with %v", asked, err)
	}
}
