package rpc

import (
	"fmt"
	"testing"
	"time"
)

// A server that is too slow for as many handshakes as come takes fewer at once, never less than some, and as many as before
// when it is fast again.
func TestFewerHandshakesWhileTheyTakeLong(t *testing.T) {
	fill := func(s *slots) (n int) {
		for s.take(fmt.Sprint(n)) {
			n++
		}
		for i := range n {
			s.free(fmt.Sprint(i))
		}
		return n
	}
	s := &slots{of: map[string]int{}}
	if n := fill(s); n != maxShaking {
		t.Errorf("%d at once, want %d", n, maxShaking)
	}
	s.ended(shakesSlowly + time.Millisecond)
	if n := fill(s); n != maxShaking*3/4 {
		t.Errorf("after a slow one %d at once, want %d", n, maxShaking*3/4)
	}
	for range 100 {
		s.ended(time.Second)
	}
	if n := fill(s); n != leastShaking {
		t.Errorf("after many slow ones %d at once, want %d", n, leastShaking)
	}
	for range maxShaking {
		s.ended(time.Millisecond)
	}
	if n := fill(s); n != maxShaking {
		t.Errorf("after many fast ones %d at once, want %d", n, maxShaking)
	}
}
