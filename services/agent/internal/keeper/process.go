package keeper

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one logger, held by what the kernel knows it by: its number may be another's as soon as it has ended.
type process struct {
	pid  int
	file *os.File // a pidfd
}

// close lets go of it. It lives on.
func (p *process) close() {
	if p != nil {
		_ = p.file.Close() // nothing was written
	}
}

// wait returns when it has ended.
func (p *process) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) }) // a file that can be polled takes it
	defer stop()
	conn, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	err = conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err != nil || n > 0
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// find is the logger of a folder, nil if there is none: mostly a child of the container's shim.
func find(o Output) *process {
	shim := parent(o.PID)
	home := []string{space("self")}
	if shim > 1 {
		home = append(home, space(fmt.Sprint(shim)))
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", shim)) // no pattern: it would list what each thread has, which is much
		for _, thread := range threads {
			raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", shim, thread.Name()))
			if err != nil {
				continue // that thread has ended
			}
			for _, pid := range strings.Fields(string(raw)) {
				if p := claim(pid, o.Folder, home); p != nil {
					return p
				}
			}
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if p := claim(e.Name(), o.Folder, home); p != nil {
			return p
		}
	}
	return nil
}

// claim takes hold of a process if it is the logger of a folder. It is looked at while it is held, so that what was seen is of it.
func claim(pid, folder string, home []string) *process {
	if number(pid) <= 1 || !is(pid, folder, home) {
		return nil // most are not: no need to hold them
	}
	fd, err := unix.PidfdOpen(number(pid), unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil // it has ended
	}
	p := &process{number(pid), os.NewFile(uintptr(fd), "logger")}
	if !is(pid, folder, home) {
		p.close()
		return nil
	}
	return p
}

// is looks at how a process was started, and at whose it is: what a container calls itself is its own affair, but it has numbers of its
// own for its processes, and no logger has.
func is(pid, folder string, home []string) bool {
	raw, err := os.ReadFile("/proc/" + pid + "/cmdline") //nolint:gosec // a number that the kernel has told
	if err != nil || !strings.HasSuffix(string(raw), "\x00logger\x00"+folder+"\x00") {
		return false
	}
	for _, s := range home {
		if s != "" && s == space(pid) {
			return true
		}
	}
	return false
}

// space is the namespace of process numbers that a process is in; empty: it has ended.
func space(pid string) string {
	to, err := os.Readlink("/proc/" + pid + "/ns/pid")
	if err != nil {
		return ""
	}
	return to
}

func number(text string) (n int) {
	if _, err := fmt.Sscanf(text, "%d", &n); err != nil {
		return 0
	}
	return n
}

// parent is the fourth word of /proc/PID/stat (man 5 proc), after a name in brackets that may have any character in it.
func parent(pid int64) int {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	words := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	if len(words) < 2 {
		return 0
	}
	return number(words[1])
}
