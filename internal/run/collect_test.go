package run

import "testing"

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

// When a stampede is over, memory is collected early again, whatever a single second brings now and then; and while it lasts the share
// falls as what is in use grows.
func TestMemoryOfAStampedeIsGivenBack(t *testing.T) {
	const mb = 1 << 20
	var p pace
	p.look(40 * mb)
	for second := range 60 {
		seen := uint64(mb)
		if second%9 == 0 {
			seen = 2 * mb
		}
		got := p.look(seen)
		if second < collectCalm-1 && got != 40*mb {
			t.Fatalf("%d s after the stampede: %d MB", second+1, got/mb)
		}
		if second >= collectCalm && got != 2*mb {
			t.Fatalf("%d s after the stampede: %d MB, want 2", second+1, got/mb)
		}
	}
	if young, grown := collectShare(40*mb, 40*mb), collectShare(40*mb, 200*mb); young != 200 || grown != 40 {
		t.Errorf("with 40 and 200 MB in use: %d and %d %%", young, grown)
	}
}
