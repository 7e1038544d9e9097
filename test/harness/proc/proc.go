// Package proc names processes so that a reused process id is never mistaken for the one that was meant, and waits
// for processes that are not one's own children. It only reads /proc and uses process file descriptors; it keeps no
// state and is safe for concurrent use.
package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ID is a process id together with the process's start time in clock ticks since boot.
type ID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// Of returns the identity of a live process.
func Of(pid int) (ID, error) {
	start, state, err := stat(pid)
	if err != nil {
		return ID{}, err
	}
	if state == "Z" {
		return ID{}, fmt.Errorf("process %d has ended", pid)
	}
	return ID{PID: pid, Start: start}, nil
}

// Alive says whether that very process runs; a zombie does not.
func (id ID) Alive() bool {
	start, state, err := stat(id.PID)
	return id.PID > 0 && err == nil && start == id.Start && state != "Z"
}

// stat reads start time and state. The command name in the second field may hold spaces and parentheses, so fields
// are counted from the last parenthesis (proc(5)).
func stat(pid int) (start uint64, state string, err error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, "", err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return 0, "", fmt.Errorf("process %d: unexpected stat line", pid)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0], err
}

// Signal sends a signal to that very process. One that has ended is no fault.
func (id ID) Signal(signal syscall.Signal) error {
	if !id.Alive() {
		return nil
	}
	if err := unix.Kill(id.PID, signal); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to process %d: %w", signal, id.PID, err)
	}
	return nil
}

// Wait returns when the process has ended, and reaps it if it was a child of the caller.
func (id ID) Wait(limit time.Duration) error {
	if !id.Alive() {
		reap(id.PID)
		return nil
	}
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", id.PID, err)
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("process %d has not ended within %s", id.PID, limit)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("watch process %d: %w", id.PID, err)
		}
		if n > 0 {
			reap(id.PID)
			return nil
		}
	}
}

// reap collects the exit status if the process was a child of the caller; the error says that it was not.
func reap(pid int) {
	if pid > 0 {
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// List returns the ids of all processes that the caller sees.
func List() ([]int, error) {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Args returns a process's argument list, empty if it has none or is gone.
func Args(pid int) []string {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// Inside is a process as its innermost process-id namespace knows it.
type Inside struct {
	Namespace string // the link text of /proc/<pid>/ns/pid
	PID       int
}

// Outside maps processes of inner namespaces to their ids here.
func Outside() (map[Inside]int, error) {
	pids, err := List()
	if err != nil {
		return nil, err
	}
	found := map[Inside]int{}
	for _, pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		text, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			continue // it ended while we looked
		}
		_, rest, ok := strings.Cut(string(text), "\nNSpid:")
		line, _, _ := strings.Cut(rest, "\n")
		fields := strings.Fields(line)
		if !ok || len(fields) < 2 {
			continue
		}
		inner, err := strconv.Atoi(fields[len(fields)-1])
		namespace, linkErr := os.Readlink(filepath.Join(dir, "ns", "pid"))
		if err == nil && linkErr == nil {
			found[Inside{Namespace: namespace, PID: inner}] = pid
		}
	}
	return found, nil
}
