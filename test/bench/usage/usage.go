// Package usage reads what a process on a laboratory's host uses: memory, and CPU time.
//
// It owns the reading of the kernel's tables; what a figure means is the caller's. It changes nothing and keeps nothing.
package usage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/shoalproject/shoal/test/harness"
)

// Look is what a process has used when it was looked at.
type Look struct {
	At     time.Time
	CPU    time.Duration // user and system
	Memory Memory
}

// Busy is the share of a CPU, in percent, that a process has used since an earlier look.
func (l Look) Busy(since Look) float64 {
	return 100 * (l.CPU - since.CPU).Seconds() / l.At.Sub(since.At).Seconds()
}

// Of looks at the process of a unit, not at those that it has started.
func Of(ctx context.Context, lab *harness.Lab, host, unit string) (Look, error) {
	pid, err := pidOf(ctx, lab, host, unit)
	if err != nil {
		return Look{}, err
	}
	memory, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return Look{}, fmt.Errorf("read the memory of %s on %s: %w", unit, host, err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Look{}, fmt.Errorf("read the CPU time of %s on %s: %w", unit, host, err)
	}
	look := Look{At: time.Now()}
	if look.CPU, err = parseCPU(string(stat)); err != nil {
		return Look{}, err
	}
	look.Memory, err = parseMemory(string(memory))
	return look, err
}

// pidOf is the id of a unit's process on this machine.
func pidOf(ctx context.Context, lab *harness.Lab, host, unit string) (int, error) {
	status, err := lab.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, h := range status.Hosts {
		for _, p := range h.Processes {
			if h.Name == host && p.Name == unit && p.PID != 0 {
				return p.PID, nil
			}
		}
	}
	return 0, fmt.Errorf("%s does not run on %s", unit, host)
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

// Memory is a process's, in MiB: what is resident, and what of it is no page of a file.
type Memory struct{ Resident, Anonymous float64 }

// Add adds another process's.
func (m *Memory) Add(o Memory) {
	m.Resident += o.Resident
	m.Anonymous += o.Anonymous
}

// MemoryOf reads smaps_rollup (proc_pid_smaps(5)) of the one process of a program on a host.
func MemoryOf(ctx context.Context, lab *harness.Lab, host, program string) (Memory, error) {
	text, said, code, err := lab.Exec(ctx, host, "sh", "-c", "cat /proc/$(pidof "+program+")/smaps_rollup")
	if err != nil || code != 0 {
		return Memory{}, errors.Join(err, fmt.Errorf("read the memory of %s on %s: exit code %d: %s", program, host, code, said))
	}
	return parseMemory(text)
}

func parseMemory(text string) (Memory, error) {
	const kib = 1024
	var m Memory
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, err := strconv.ParseFloat(f[1], 64)
		switch {
		case f[0] == "Rss:" && err == nil:
			m.Resident = n / kib
		case f[0] == "Anonymous:" && err == nil:
			m.Anonymous = n / kib
		}
	}
	if m.Resident == 0 {
		return m, fmt.Errorf("no resident memory in %q", text)
	}
	return m, nil
}
