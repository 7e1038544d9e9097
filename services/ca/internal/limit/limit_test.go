package limit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoalproject/shoal/services/ca/internal/limit"
)

func allowed(l *limit.Limiter, address string, at time.Time, tries int) (n int) {
	for range tries {
		if l.Allow(address, at) {
			n++
		}
	}
	return n
}

func TestBurstThenRate(t *testing.T) {
	l, now := limit.New(1, 5, 100), time.Unix(1000, 0)
	if n := allowed(l, "10.0.0.1:1", now, 10); n != 5 {
		t.Errorf("%d at once, wanted 5", n)
	}
	if n := allowed(l, "10.0.0.1:2", now.Add(3*time.Second), 10); n != 3 {
		t.Errorf("%d after 3 s from another port, wanted 3", n)
	}
	if n := allowed(l, "10.0.0.2:1", now, 10); n != 5 {
		t.Errorf("%d from another address, wanted 5", n)
	}
	if n := allowed(l, "10.0.0.1:1", now.Add(-time.Hour), 1); n != 0 {
		t.Error("a clock that went back earned a try")
	}
}

func TestOneIPv6NetworkIsOneAddress(t *testing.T) {
	l, now := limit.New(1, 5, 100), time.Unix(1000, 0)
	total := 0
	for i := range 20 {
		total += allowed(l, fmt.Sprintf("[2001:db8::%x]:1", i), now, 1)
	}
	if total != 5 {
		t.Errorf("%d tries from one /64, wanted 5", total)
	}
}

func TestTheTableIsBounded(t *testing.T) {
	l, now := limit.New(1, 5, 10), time.Unix(1000, 0)
	total := 0
	for i := range 1000 {
		total += allowed(l, fmt.Sprintf("10.0.%d.%d:1", i/250, i%250), now, 1)
	}
	if total > 15 {
		t.Errorf("%d newcomers got in while the table was full", total)
	}
	if n := allowed(l, "10.9.9.9:1", now.Add(time.Minute), 10); n != 5 {
		t.Errorf("%d a minute later, wanted 5: the table forgets who has refilled", n)
	}
}
