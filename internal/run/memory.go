package run

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settleAfter is how long a process is given to come up before the memory of its start is given back.
	settleAfter = 15 * time.Second
	// idlePeriod is how often an idle process looks for memory to give back, and busyBytes what it allocates in this time
	// at least when it is not idle.
	idlePeriod = 30 * time.Second
	busyBytes  = 16 << 20
	// smallHeap bounds what that may cost: 32 MB are collected in some 10 ms.
	smallHeap = 32 << 20
)

// Settle keeps the process small while it has little to do, until ctx ends. Main calls it.
//
// Step 1: when the process has come up, it gives back what its start took: a start reads certificates, fills tables and runs
// through code that is never needed again. Step 2: now and then, what an idle process has let go of: the collector alone
// would wait until the heap has doubled. It is the work of a millisecond. A busy process is left alone: its collector works
// anyway, and a smaller goal for it costs creates (docs/benchmarks).
func Settle(ctx context.Context) {
	Async(ctx, func(ctx context.Context) (struct{}, error) {
		if Sleep(ctx, settleAfter) != nil {
			return struct{}{}, nil
		}
		debug.FreeOSMemory()
		dropProgram()
		for last := allocated(); Sleep(ctx, idlePeriod) == nil; {
			next := allocated()
			if idle(last, next) {
				debug.FreeOSMemory()
			}
			last = next
		}
		return struct{}{}, nil
	})
}

// heap is what a process has allocated since its start, and what of it is in use.
type heap struct{ ever, inUse uint64 }

func allocated() heap {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return heap{ever: s[0].Value.Uint64(), inUse: s[1].Value.Uint64()}
}

// idle tells from two looks whether collecting now is cheap and in nobody's way.
func idle(last, next heap) bool {
	return next.ever-last.ever < busyBytes && next.inUse < smallHeap
}

// dropProgram gives back the pages of the program's own file. They are clean and stay in the page cache: one that is used
// again is mapped again, without reading it anew.
func dropProgram() {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return // no machine of the kind that this is for
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for _, part := range programPages(string(maps), exe) {
		_ = adviseUnused(part) // it is advice: a kernel that does not take it has its reasons
	}
}

// pages is a part of the address space.
type pages struct{ from, to uint64 }

// programPages finds the parts of the program's file that nobody can write to, in the text of proc_pid_maps(5). A page that
// was written to is no longer the file's, and would be lost.
func programPages(maps, exe string) []pages {
	var out []pages
	for line := range strings.Lines(maps) {
		// from-to permissions offset device inode path
		f := strings.Fields(line)
		if len(f) != 6 || f[5] != exe || len(f[1]) < 2 || f[1][1] == 'w' {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		a, errA := strconv.ParseUint(from, 16, 64)
		z, errZ := strconv.ParseUint(to, 16, 64)
		if errA == nil && errZ == nil && a < z {
			out = append(out, pages{a, z})
		}
	}
	return out
}

// adviseUnused is madvise(2). Package unix has it only for memory that is a slice.
func adviseUnused(p pages) error {
	_, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(p.from), uintptr(p.to-p.from), unix.MADV_DONTNEED)
	if errno != 0 {
		return errno
	}
	return nil
}
