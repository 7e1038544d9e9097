// Package system says what machine this is.
//
// It owns the few looks at the operating system that no other package needs. It must never change anything.
package system

import (
	"bufio"
	"bytes"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/disk"
)

// Machine is the real one. Data is the folder of what the agent keeps.
type Machine struct{ Data string }

// Describe says what it is. What can't be found out is left empty.
func (m Machine) Describe() *typesv1.NodeDescription {
	d := &typesv1.NodeDescription{
		Platform: &typesv1.Platform{Os: runtime.GOOS, Architecture: runtime.GOARCH},
		NanoCpus: int64(runtime.NumCPU()) * 1e9, MemoryBytes: memory(), DiskBytes: size(m.Data), Kernel: kernel(), Version: run.Version(),
	}
	d.Hostname, _ = os.Hostname()
	return d
}

// memory is the machine's, in bytes (proc(5), MemTotal in KiB).
func memory() int64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "MemTotal:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

// Free is the file system of what the agent keeps.
func (m Machine) Free() (disk.Use, error) { return Room(m.Data) }

// Room is the file system of a folder as df(1) counts it: what is kept back for root, or by whoever owns the disk below, is no part of
// it, as nobody fills that.
func Room(folder string) (disk.Use, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return disk.Use{}, err
	}
	return room(st), nil
}

func room(st unix.Statfs_t) disk.Use {
	return disk.Use{Total: int64(st.Blocks-st.Bfree+st.Bavail) * st.Frsize, Free: int64(st.Bavail) * st.Frsize}
}

// size is that of a folder's file system, in bytes; 0 when there is none.
func size(folder string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return 0
	}
	return int64(st.Blocks) * st.Frsize
}

func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}
