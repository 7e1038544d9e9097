package idpool

import (
	"testing"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// No two containers have one range, however they came by it; one that was given back rests until the others have been used.
func TestPool(t *testing.T) {
	const first = 1 << 30
	p := New(first, 3)
	steps := []struct {
		do   string
		id   string
		want int // number of the range, from 1; 0: none
	}{
		{"take", "a", 1},
		{"take", "a", 1}, // again: the same
		{"take", "b", 2},
		{"free", "a", 0},
		{"take", "c", 3}, // not a's
		{"take", "d", 1},
		{"take", "e", 0}, // no more
		{"free", "b", 0},
		{"free", "b", 0}, // twice is no more than once
		{"take", "e", 2},
		{"free", "c", 0},
		{"hold", "x", 3}, // found when the agent began
		{"take", "f", 0},
		{"hold", "far", 9}, // of another configuration
		{"free", "x", 0},
		{"take", "f", 3},
		{"take", "far", 9},
	}
	for i, s := range steps {
		ids := container.IDs{First: first + uint32(s.want-1)*container.IDCount}
		switch s.do {
		case "free":
			p.Free(s.id)
		case "hold":
			p.Hold(s.id, ids)
		case "take":
			got, err := p.Take(s.id)
			if s.want == 0 && errs.Is(err, errs.Unavailable) {
				continue
			}
			if err != nil || got != ids {
				t.Fatalf("step %d: %s takes %+v, %v, want range %d", i, s.id, got, err, s.want)
			}
		}
	}
}

// A range that two containers are found to have is free when both are gone.
func TestRangeOfTwo(t *testing.T) {
	p := New(1<<30, 1)
	p.Hold("a", container.IDs{First: 1 << 30})
	p.Hold("b", container.IDs{First: 1 << 30})
	p.Free("a")
	if got, err := p.Take("c"); err == nil {
		t.Fatalf("c gets %+v, which b has", got)
	}
	p.Free("b")
	if _, err := p.Take("c"); err != nil {
		t.Fatal(err)
	}
}
