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
		{"thousands of sessions that beat", 8 * mb, 200 * mb, 25},
		{"thousands that come", 40 * mb, 100 * mb, 80},
		{"thousands that come to one that has just started", 40 * mb, 20 * mb, 200},
		{"nothing in use", 1, 0, 200},
	} {
		if got := collectShare(c.allocated, c.inUse); got != c.want {
			t.Errorf("%s: %d %%, want %d %%", c.name, got, c.want)
		}
	}
}

// When a stampede is over, memory is collected early again, whatever a single second brings now and then.
func TestMemoryOfAStampedeIsGivenBack(t *testing.T) {
	var p pace
	p.look(200)
	got := 0
	for second := range 60 {
		want := collectLeast
		if second%9 == 0 {
			want = 30
		}
		got = p.look(want)
		if second < collectCalm-1 && got != 200 {
			t.Fatalf("%d s after the stampede: %d %%", second+1, got)
		}
	}
	if got != 30 {
		t.Errorf("a minute after the stampede: %d %%, want 30 %%", got)
	}
}
