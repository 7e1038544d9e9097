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
		p := pace{percent: collectLeast}
		for last := allocated(); Sleep(ctx, collectLook) == nil; {
			next, before := allocated(), p.percent
			giveBack := p.look(next.ever-last.ever, next.inUse)
			last = next
			if p.percent != before {
				debug.SetGCPercent(p.percent)
			}
			if giveBack {
				debug.FreeOSMemory()
			}
		}
		return struct{}{}, nil
	})
}

// pace is what was allocated within each of the last looks, and how much may come on top of what is in use now, in percent.
type pace struct {
	seen    [collectCalm]uint64
	next    int
	percent int
	highest int // that was, since memory was given back last
}

// look notes one, and says whether memory is to be given back. The most of the last ones counts: a stampede is over when none of them saw
// it. It is not their share that is kept: that of a process which has just started would leave gaps in its memory which it no longer needs
// when it has grown. Nor is memory given back whenever the share falls, as it does all through a stampede while more is in use from one
// look to the next: to give it back is to collect it.
func (p *pace) look(allocated, inUse uint64) (giveBack bool) {
	most := p.most()
	p.seen[p.next] = allocated
	p.next = (p.next + 1) % len(p.seen)
	p.percent = collectShare(p.most(), inUse)
	p.highest = max(p.highest, p.percent)
	if p.most() >= most || p.percent == p.highest {
		return false
	}
	p.highest = p.percent
	return true
}

func (p *pace) most() uint64 { return slices.Max(p.seen[:]) }

// collectShare is how much may come on top of what is in use, in percent, for what was allocated within one look.
func collectShare(allocated, inUse uint64) int {
	if inUse == 0 {
		return collectMost
	}
	return int(min(max(100*allocated*uint64(collectGap/collectLook)/inUse, collectLeast), collectMost))
}
