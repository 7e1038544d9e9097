package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shoalproject/shoal/test/harness"
)

// usage is what a process has used when it was looked at.
type usage struct {
	at     time.Time
	cpu    time.Duration // user and system
	memory memory
}

// usageOf looks at the one process of a program on a host.
func usageOf(ctx context.Context, lab *harness.Lab, host, program string) (usage, error) {
	m, err := memoryOf(ctx, lab, host, program)
	if err != nil {
		return usage{}, err
	}
	text, said, code, err := lab.Exec(ctx, host, "sh", "-c", "cat /proc/$(pidof "+program+")/stat")
	if err != nil || code != 0 {
		return usage{}, errors.Join(err, fmt.Errorf("read the CPU time of %s on %s: exit code %d: %s", program, host, code, said))
	}
	cpu, err := parseCPU(text)
	return usage{at: time.Now(), cpu: cpu, memory: m}, err
}

// tick is the kernel's USER_HZ, which is 100 on all that we measure on.
const tick = 10 * time.Millisecond

// parseCPU reads utime and stime of proc_pid_stat(5). The name before them may have spaces.
func parseCPU(text string) (time.Duration, error) {
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const utime, stime = 11, 12 // after the name
	if len(f) <= stime {
		return 0, fmt.Errorf("no CPU time in %q", text)
	}
	user, err := strconv.ParseInt(f[utime], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("no CPU time in %q", text)
	}
	system, err := strconv.ParseInt(f[stime], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("no CPU time in %q", text)
	}
	return time.Duration(user+system) * tick, nil
}
