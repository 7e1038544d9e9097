// Package kernel says what this machine has for containers: its kernel, and the containerd that starts them.
//
// It must never change anything, but for AppArmor's default profile, which it loads. It keeps nothing: who asks for what does not
// change keeps the answer.
package kernel

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	profiles "github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/containerd/containerd/v2/pkg/apparmor"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/runtimespec"
)

// appArmorProfile is the name under which containerd's default profile is loaded.
const appArmorProfile = "shoal-default"

// appArmor loads the default profile, where the kernel has AppArmor. Without the program that loads profiles containers run
// without one, as they do on a kernel without AppArmor.
func appArmor(logger *slog.Logger) string {
	if !apparmor.HostSupports() {
		return ""
	}
	err := profiles.LoadDefaultProfile(appArmorProfile)
	if err == nil {
		return appArmorProfile
	}
	// One of the same content that somebody else has loaded does as well.
	loaded, _ := os.ReadFile("/sys/kernel/security/apparmor/profiles")
	for _, name := range []string{appArmorProfile, "docker-default", "cri-containerd.apparmor.d"} {
		if strings.Contains("\n"+string(loaded), "\n"+name+" (enforce)") {
			return name
		}
	}
	logger.Warn("this kernel has AppArmor, and no profile for containers can be loaded; is the package apparmor installed?", "error", err)
	return ""
}

// Machine looks at what the kernel has, once: it does not change while it runs.
func Machine(initProgram string, logger *slog.Logger) runtimespec.Machine {
	m := runtimespec.Machine{
		Unified: unified(), Seccomp: hasSeccomp(), SELinux: exists("/sys/fs/selinux/enforce"), Files: fileLimit(), Init: initProgram,
		AppArmor: appArmor(logger), CDI: []string{"/etc/cdi", "/var/run/cdi"},
	}
	m.Swap = m.Unified || exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
	m.Recursive = AtLeast(5, 12)
	return m
}

// AtLeast says whether the kernel is of this version or a later one.
func AtLeast(major, minor int) bool {
	var u unix.Utsname
	var a, b int
	if unix.Uname(&u) != nil {
		return false
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// unified says whether control groups are those of version 2 (cgroups(7)).
func unified() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// hasSeccomp says whether the kernel filters system calls (seccomp(2)): without it runc refuses a profile.
func hasSeccomp() bool {
	_, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	return !errors.Is(err, unix.EINVAL)
}

// hardFiles is room for a server that asks for more open files.
const hardFiles = 524288

// fileLimit is hardFiles, or this machine's own limit where that is lower: without CAP_SYS_RESOURCE nobody can exceed it.
func fileLimit() uint64 {
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		return 1024
	}
	return min(hardFiles, own.Max)
}

// OOMKilled looks into the container's cgroup, which is there until its process is deleted: with cgroup v1 in
// memory.oom_control, with v2 in memory.events. So the answer does not depend on having heard an event.
func OOMKilled(id string) bool {
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
