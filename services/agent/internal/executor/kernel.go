package executor

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// hasSeccomp says whether the kernel filters system calls (seccomp(2)): without it runc refuses a profile.
func hasSeccomp() bool {
	_, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	return !errors.Is(err, unix.EINVAL)
}

// fileLimit is hardFiles, or this machine's own limit where that is lower: without CAP_SYS_RESOURCE nobody can exceed it.
func fileLimit() uint64 {
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		return softFiles
	}
	return min(hardFiles, own.Max)
}

// oomKilled looks into the container's cgroup, which is there until its process is deleted: with cgroup v1 in
// memory.oom_control, with v2 in memory.events. So the answer does not depend on having heard an event.
func oomKilled(id string) bool {
	for _, file := range []string{
		filepath.Join("/sys/fs/cgroup/memory", container.Group(id), "memory.oom_control"),
		filepath.Join("/sys/fs/cgroup", container.Group(id), "memory.events"),
	} {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
			if key, count, _ := strings.Cut(lines.Text(), " "); key == "oom_kill" {
				return count != "0"
			}
		}
	}
	return false
}
