package space_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/shoalproject/shoal/services/meshproxy/internal/tracked"
)

// Who looks at connections, which may be many and take long to be told, holds up no change of the tables.
func TestFlowsHoldUpNothing(t *testing.T) {
	r := newRig(t)
	r.tell([]int{10, 11, 12}, []int{11, 12})
	r.expect(r.who("tcp", "10.0.0.2:80", 2), "11:1 12:1")
	told, done := 0, make(chan error, 1)
	go func() {
		done <- r.spaces.Flows(func(string, tracked.Flow) {
			told++
			r.spaces.Behind(netip.MustParseAddr("10.0.0.2")) // waits for the lock, as a change does
		})
	}()
	select {
	case err := <-done:
		if err != nil || told != 2 {
			t.Errorf("%d connections told, want 2: %v", told, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the tables are held while connections are told")
	}
}
