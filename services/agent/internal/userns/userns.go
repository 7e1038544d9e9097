// Package userns makes user namespaces, and mounts whose files have other owners in them.
//
// It owns the system calls for that, and the answer to whether this machine allows it. It must never keep anything: who asks
// for a namespace or a mount holds it and lets it go. Everything is safe for concurrent use.
package userns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// limitFile says how many there may be. Without it the kernel has none.
const limitFile = "/proc/sys/user/max_user_namespaces"

// Hold makes a user namespace with these ids and a network namespace that belongs to it: only in one of its own may the
// namespace's root mount /sys and set net.*. Both are there while f runs, as files in the folder that it is given (namespaces(7)), and
// go with it unless f keeps them. Unavailable: there are as many as there may be. Precondition: this machine has none.
func Hold(ids container.IDs, f func(folder string) error) (err error) {
	// The namespaces need a process to begin with. It is this program, stopped by ptrace(2) before its first instruction and killed
	// there; the kernel ties it to the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all := []syscall.SysProcIDMap{{HostID: int(ids.First), Size: container.IDCount}}
	p, err := os.StartProcess("/proc/self/exe", []string{"user-namespace"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true,
		Ptrace: true, Pdeathsig: unix.SIGKILL,
	}})
	if err != nil {
		return refusal(err)
	}
	defer func() {
		killed := p.Kill()
		_, waited := p.Wait()
		err = errors.Join(err, killed, waited)
	}()
	return f(fmt.Sprintf("/proc/%d/ns", p.Pid))
}

// refusal says what the kernel meant.
func refusal(err error) error {
	limit, readErr := os.ReadFile(limitFile)
	text := strings.TrimSpace(string(limit))
	switch {
	case errors.Is(readErr, os.ErrNotExist):
		return errs.New(errs.Precondition, "the kernel is built without CONFIG_USER_NS")
	case text == "0":
		return errs.New(errs.Precondition, "sysctl user.max_user_namespaces is 0")
	case errors.Is(err, unix.ENOSPC):
		return errs.New(errs.Unavailable, "there are as many as may be: sysctl user.max_user_namespaces is %s", text)
	}
	return errs.New(errs.Precondition, "the kernel refuses: %w", err)
}

// Able says why containers with user namespaces of their own can't run here; nil: they can. It tries both: a namespace, and a mount of
// the folder of volumes with other owners.
func Able(volumes string) error {
	const first = 1 << 30 // of a range that is let go at once
	return Hold(container.IDs{First: first}, func(folder string) error {
		users, err := os.Open(filepath.Join(folder, "user"))
		if err != nil {
			return fmt.Errorf("open a user namespace: %w", err)
		}
		defer users.Close()
		tree, err := clone(unix.AT_FDCWD, volumes, users, Tree{})
		if err != nil {
			return errs.New(errs.Precondition, "the file system of %s can't be mounted with other owners (%w); that needs Linux 5.12 and a file system such as ext4, xfs or btrfs", volumes, err)
		}
		return unix.Close(tree)
	})
}

// Tree says how a folder is seen at another place.
type Tree struct {
	Recursive bool // with what is mounted below
	Slave     bool // what is mounted below later is seen too
}

// Mount shows at a place what is at from, a path below the open folder dir (or unix.AT_FDCWD), to a user namespace: what belongs to root on
// disk belongs to the root of the namespace, and what that makes belongs to root on disk. Invalid: that file system can't do it.
func Mount(dir int, from string, users *os.File, at string, t Tree) error {
	tree, err := clone(dir, from, users, t)
	if err != nil {
		return errs.New(errs.Invalid, "it, or what is mounted below it, is of a file system that can't be mounted with the owners of a user "+
			"namespace (%w); ext4, xfs and btrfs can, tmpfs from Linux 6.3 on", err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount at %s: %w", at, err)
	}
	return nil
}

// clone is a mount that is nowhere yet.
func clone(dir int, from string, users *os.File, t Tree) (int, error) {
	deep := uint(0)
	if t.Recursive {
		deep = unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(dir, from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|deep)
	if err != nil {
		return -1, err
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd()), Propagation: unix.MS_PRIVATE}
	if t.Slave {
		attr.Propagation = unix.MS_SLAVE
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|deep, attr); err != nil {
		return -1, errors.Join(err, unix.Close(tree))
	}
	return tree, nil
}

// Range is what a process's ids stand for, as user_namespaces(7) has it in /proc/PID/uid_map; the zero value for the machine's own.
func Range(uidMap string) container.IDs {
	f := strings.Fields(uidMap)
	if len(f) < 3 || f[0] != "0" {
		return container.IDs{}
	}
	first, err := strconv.ParseUint(f[1], 10, 32)
	if err != nil {
		return container.IDs{}
	}
	return container.IDs{First: uint32(first)}
}
