package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
)

// Spaces are the ids that have a namespace.
func (k *Kernel) Spaces() ([]string, error) {
	entries, err := os.ReadDir(k.spaces)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids, nil
}

// Socket is one to the packet filter of a container's namespace, for the meshproxy, which keeps the tables in it. It keeps the
// namespace alive. Errors: NotFound.
func (k *Kernel) Socket(id string) (*os.File, error) {
	space, err := netns.GetFromPath(filepath.Join(k.spaces, id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "container %s has no network namespace", id)
	}
	if err != nil {
		return nil, fmt.Errorf("open the network namespace of %s: %w", id, err)
	}
	defer space.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer home.Close()
	if err := netns.Set(space); err != nil { // also what is no namespace: a place to mount on that lost its mount
		return nil, errs.New(errs.NotFound, "enter the network namespace of %s: %w", id, err)
	}
	fd, failed := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err := netns.Set(home); err != nil {
		runtime.LockOSThread() // one lock too many: the thread ends with its goroutine
		return nil, err
	}
	if failed != nil {
		return nil, fmt.Errorf("open a socket in the network namespace of %s: %w", id, failed)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), id), nil
}
