// Package usage reads what a container uses, from the kernel's control groups.
//
// It owns the two forms that the kernel has for it: cgroup v1, a tree for each controller, and v2, one tree. It must never
// write to a group, nor know whose it is. It keeps nothing: what is a rate is the caller's to make from two readings. Safe
// for concurrent use.
package usage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// Root is where the groups are mounted.
const Root = "/sys/fs/cgroup"

// unlimited is what cgroup v1 says instead of "max": the highest number of pages, in bytes. Anything near it is no limit.
const unlimited = 1 << 60

// Figures are what a group has used or uses now.
type Figures struct {
	// CPU is the processor time used since the group was made.
	CPU time.Duration
	// Memory is in bytes, without the part of the page cache that the kernel takes back first (as `docker stats` counts).
	Memory int64
	// MemoryLimit is in bytes; 0: none.
	MemoryLimit int64
	// PIDs is the number of processes and threads.
	PIDs int64
	// Read and Written are bytes from and to block devices since the group was made.
	Read, Written int64
}

// Reader reads groups below one root.
type Reader struct {
	root    fs.FS
	unified bool
}

// New reads the groups mounted at root.
func New(root fs.FS) Reader {
	_, err := fs.Stat(root, "cgroup.controllers") // cgroups(7): in the root of v2 alone
	return Reader{root: root, unified: err == nil}
}

// Real reads this machine's groups.
func Real() Reader { return New(os.DirFS(Root)) }

// Read tells a group's figures. What its controllers do not count is 0; fs.ErrNotExist: there is no such group, or neither
// CPU nor memory is counted.
func (r Reader) Read(group string) (Figures, error) {
	group = strings.Trim(path.Clean(group), "/")
	if r.unified {
		return r.readUnified(group)
	}
	return r.readSplit(group)
}

// Groups are the names of the groups below a parent; none when it is not there.
func (r Reader) Groups(parent string) (names []string) {
	parent = strings.Trim(path.Clean(parent), "/")
	trees := []string{"cpuacct", "memory"}
	if r.unified {
		trees = []string{""}
	}
	for _, tree := range trees {
		entries, err := fs.ReadDir(r.root, path.Join(tree, parent))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
		return names
	}
	return nil
}

// readUnified reads cgroup v2 (the kernel's admin-guide/cgroup-v2.rst).
func (r Reader) readUnified(group string) (f Figures, err error) {
	cpu, errCPU := r.keyed(path.Join(group, "cpu.stat"))
	f.CPU = time.Duration(cpu["usage_usec"]) * time.Microsecond
	used, errMemory := r.number(path.Join(group, "memory.current"))
	if errMemory == nil {
		stat, _ := r.keyed(path.Join(group, "memory.stat"))
		f.Memory = max(used-stat["inactive_file"], 0)
		f.MemoryLimit, _ = r.number(path.Join(group, "memory.max"))
	}
	f.PIDs, _ = r.number(path.Join(group, "pids.current"))
	f.Read, f.Written = r.devices(path.Join(group, "io.stat"))
	return f, neither(group, errCPU, errMemory)
}

// readSplit reads cgroup v1 (the kernel's admin-guide/cgroup-v1).
func (r Reader) readSplit(group string) (f Figures, err error) {
	cpu, errCPU := r.number(path.Join("cpuacct", group, "cpuacct.usage"))
	f.CPU = time.Duration(cpu)
	memory := path.Join("memory", group)
	used, errMemory := r.number(path.Join(memory, "memory.usage_in_bytes"))
	if errMemory == nil {
		stat, _ := r.keyed(path.Join(memory, "memory.stat"))
		f.Memory = max(used-stat["total_inactive_file"], 0)
		f.MemoryLimit, _ = r.number(path.Join(memory, "memory.limit_in_bytes"))
	}
	f.PIDs, _ = r.number(path.Join("pids", group, "pids.current"))
	f.Read, f.Written = r.transfers(path.Join("blkio", group, "blkio.throttle.io_service_bytes"))
	return f, neither(group, errCPU, errMemory)
}

func neither(group string, cpu, memory error) error {
	if cpu != nil && memory != nil {
		return fmt.Errorf("read group %q: %w", group, errors.Join(cpu, memory))
	}
	return nil
}

// number reads a file that holds one; "max" is 0.
func (r Reader) number(name string) (int64, error) {
	data, err := fs.ReadFile(r.root, name)
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(data))
	if text == "max" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	if n >= unlimited {
		return 0, nil
	}
	return int64(n), nil
}

// keyed reads lines of a word and a number.
func (r Reader) keyed(name string) (map[string]int64, error) {
	out := map[string]int64{}
	return out, r.lines(name, func(words []string) {
		if n, err := strconv.ParseInt(words[len(words)-1], 10, 64); err == nil && len(words) == 2 {
			out[words[0]] = n
		}
	})
}

// devices adds up io.stat of v2: "8:0 rbytes=1 wbytes=2 …".
func (r Reader) devices(name string) (read, written int64) {
	_ = r.lines(name, func(words []string) {
		for _, w := range words {
			key, value, _ := strings.Cut(w, "=")
			n, _ := strconv.ParseInt(value, 10, 64)
			switch key {
			case "rbytes":
				read += n
			case "wbytes":
				written += n
			}
		}
	})
	return read, written
}

// transfers adds up the lines of blkio of v1: "8:0 Read 1".
func (r Reader) transfers(name string) (read, written int64) {
	_ = r.lines(name, func(words []string) {
		if len(words) != 3 {
			return
		}
		n, _ := strconv.ParseInt(words[2], 10, 64)
		switch words[1] {
		case "Read":
			read += n
		case "Write":
			written += n
		}
	})
	return read, written
}

func (r Reader) lines(name string, f func(words []string)) error {
	data, err := fs.ReadFile(r.root, name)
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) > 0 {
			f(words)
		}
	}
	return nil
}
