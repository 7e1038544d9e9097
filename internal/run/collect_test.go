package run

import (
	"slices"
	"testing"
)

// A process that allocates little beside what it has in use collects early; one that allocates fast at most every two seconds,
// as far as three times its memory goes.
func TestMemoryIsCollectedEarlyUnlessThatIsOften(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name             string
		allocated, inUse uint64
		want             int
	}{
		{"thousands of sessions that beat", 8 * mb, 200 * mb, 20},
		{"thousands that come", 40 * mb, 100 * mb, 80},
		{"thousands that come to one that has just started", 40 * mb, 20 * mb, 200},
		{"nothing in use", 1, 0, 200},
	} {
		if got := collectShare(c.allocated, c.inUse); got != c.want {
			t.Errorf("%s: %d %%, want %d %%", c.name, got, c.want)
		}
	}
}

// When a stampede is over, memory is collected early again and given back once, whatever a single second brings now and then. While it
// lasts the share follows what is in use, and nothing is given back: that would be to collect each second.
func TestMemoryOfAStampedeIsGivenBack(t *testing.T) {
	const mb = 1 << 20
	p := pace{percent: collectLeast}
	for second := range 60 {
		inUse := uint64(40+second%4*40) * mb // it grows, and is collected
		if p.look(40*mb, inUse) {
			t.Errorf("given back %d s after the stampede began", second+1)
		}
		if want := int(8000 * mb / inUse); p.percent != want {
			t.Fatalf("%d MB in use: %d %%, want %d", inUse/mb, p.percent, want)
		}
	}
	var back []int
	for second := range 60 {
		seen := uint64(mb)
		if second%9 == 0 {
			seen = 2 * mb
		}
		inUse := uint64(200 * mb)
		if second > 0 {
			inUse = 500 * mb // the share has fallen before the stampede is over
		}
		if p.look(seen, inUse) {
			back = append(back, second+1)
		}
		if want := map[bool]int{true: 40, false: collectLeast}[second == 0]; p.percent != want {
			t.Fatalf("%d s after the stampede: %d %%, want %d", second+1, p.percent, want)
		}
	}
	for range 2 * collectCalm {
		p.look(mb, 50*mb)
	}
	if p.percent != collectLeast {
		t.Errorf("long after the stampede: %d %%", p.percent)
	}
	if !slices.Equal(back, []int{collectCalm}) {
		t.Errorf("given back %d s after the stampede, want once, after %d", back, collectCalm)
	}
}
