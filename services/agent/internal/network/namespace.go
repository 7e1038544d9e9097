package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/userns"
)

// place makes a file to mount a namespace on.
func place(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	return f.Close()
}

// newPair makes a user namespace and a network namespace that belongs to it, and binds both.
func newPair(ids container.IDs, users, path string) (netns.NsHandle, error) {
	if err := errors.Join(place(users), place(path)); err != nil {
		return netns.None(), err
	}
	err := userns.Hold(ids, func(folder string) error {
		return errors.Join(
			unix.Mount(filepath.Join(folder, "user"), users, "", unix.MS_BIND, ""),
			unix.Mount(filepath.Join(folder, "net"), path, "", unix.MS_BIND, ""),
		)
	})
	if err != nil {
		return netns.None(), err
	}
	return netns.GetFromPath(path)
}

// newNamespace makes a network namespace and binds it to the path. The calling thread must be locked to its goroutine; it
// is in its old namespace again when this returns, or is never used for anything else.
func newNamespace(path string) (netns.NsHandle, error) {
	if err := place(path); err != nil {
		return netns.None(), err
	}
	home, err := netns.Get()
	if err != nil {
		return netns.None(), err
	}
	defer home.Close()
	space, err := netns.New()
	if err != nil {
		return netns.None(), err
	}
	mountErr := unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
	if err := netns.Set(home); err != nil {
		// One lock too many: the thread ends with its goroutine instead of serving others in a stranger's namespace.
		runtime.LockOSThread()
		return netns.None(), errors.Join(err, mountErr, space.Close())
	}
	if mountErr != nil {
		return netns.None(), errors.Join(mountErr, space.Close())
	}
	return space, nil
}

// onTheMachine says whether a container shares the machine's network: it has files, and no namespace.
func (k *Kernel) onTheMachine(id string) bool {
	_, err := os.Stat(filepath.Join(k.files, id))
	return err == nil
}

// Dial connects to what listens in a container's network namespace, from within.
func (k *Kernel) Dial(ctx context.Context, id string, to netip.AddrPort) (net.Conn, error) {
	// The kernel knows namespaces by thread, and a socket stays where it was made.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	space, err := netns.GetFromPath(filepath.Join(k.spaces, id))
	if errors.Is(err, os.ErrNotExist) && k.onTheMachine(id) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
	}
	if err != nil {
		return nil, errs.New(errs.Unavailable, "find the network of container %s: %w", id, err)
	}
	defer space.Close()
	home, err := netns.Get()
	if err != nil {
		return nil, errs.New(errs.Unavailable, "find this machine's network: %w", err)
	}
	defer home.Close()
	if err := netns.Set(space); err != nil {
		return nil, errs.New(errs.Unavailable, "enter the network of container %s: %w", id, err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.String()) // one address, so that it is this thread that makes the socket
	if back := netns.Set(home); back != nil {
		// One lock too many: the thread ends with its goroutine instead of serving others in a stranger's namespace.
		runtime.LockOSThread()
		if conn != nil {
			_ = conn.Close()
		}
		return nil, errs.New(errs.Unavailable, "come back from the network of container %s: %w", id, back)
	}
	return conn, err
}
