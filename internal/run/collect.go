package run

import (
	"context"
	"runtime/debug"
	"slices"
	"time"
)

const (
	// collectLeast and collectMost bound how much of what is in use comes on top before memory is collected, in percent.
	collectLeast, collectMost = 20, 200
	// collectGap is how long that should take at least.
	collectGap = 2 * time.Second
	// collectLook is how often a process looks how fast it allocates, and collectCalm how many looks back it remembers.
	collectLook = time.Second
	collectCalm = 10
)

// Collect paces the collector of a process that has much in use which stays, such as thousands of sessions, until ctx ends. As a
// rule (as much again as is in use) it would take its memory twice. So memory is collected when a fifth has come on top; but
// while the process allocates fast, as in a stampede, later, or it would do little else. When that is over it gives back what
// it took. It is for the one who owns the process: a main.
func Collect(ctx context.Context) {
	debug.SetGCPercent(collectLeast)
	Async(ctx, func(ctx context.Context) (struct{}, error) {
		var p pace
		percent := collectLeast
		for last := allocated(); Sleep(ctx, collectLook) == nil; {
			next := allocated()
			want := collectShare(p.look(next.ever-last.ever), next.inUse)
			last = next
			if want == percent {
				continue
			}
			debug.SetGCPercent(want)
			if want < percent {
				debug.FreeOSMemory()
			}
			percent = want
		}
		return struct{}{}, nil
	})
}

// pace is what was allocated within each of the last looks.
type pace struct {
	seen [collectCalm]uint64
	next int
}

// look notes one. The most of the last ones counts: a stampede is over when none of them saw it. It is not their share that is kept: that
// of a process which has just started would leave gaps in its memory which it no longer needs when it has grown.
func (p *pace) look(allocated uint64) uint64 {
	p.seen[p.next] = allocated
	p.next = (p.next + 1) % len(p.seen)
	return slices.Max(p.seen[:])
}

// collectShare is how much may come on top of what is in use, in percent, for what was allocated within one look.
func collectShare(allocated, inUse uint64) int {
	if inUse == 0 {
		return collectMost
	}
	return int(min(max(100*allocated*uint64(collectGap/collectLook)/inUse, collectLeast), collectMost))
}
