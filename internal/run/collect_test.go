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
