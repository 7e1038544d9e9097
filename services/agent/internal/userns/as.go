package userns

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// As runs f with the files that it makes belonging to the root of a user namespace: where files have the namespace's owners the machine's
// root is none and may make nothing. F must make them itself and not leave it to another goroutine. Without a namespace it just runs.
func As(ids container.IDs, f func() error) error {
	if !ids.Mapped() {
		return f()
	}
	// The kernel knows who makes a file by thread (credentials(7)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer back()
	if err := own(ids.First); err != nil {
		return err
	}
	return f()
}

// own takes on the file system ids, and again the rights over files, which the kernel takes away with them.
func own(id uint32) error {
	gone := errors.Join(unix.Setfsgid(int(id)), unix.Setfsuid(int(id)))
	if now, err := unix.SetfsuidRetUid(-1); gone != nil || err != nil || now != int(id) { // it tells no other way
		return fmt.Errorf("take on the user %d for files: %w", id, errors.Join(gone, err, unix.EPERM))
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var rights [2]unix.CapUserData
	if err := unix.Capget(&header, &rights[0]); err != nil {
		return fmt.Errorf("look at this thread's rights: %w", err)
	}
	for i := range rights {
		rights[i].Effective = rights[i].Permitted
	}
	if err := unix.Capset(&header, &rights[0]); err != nil {
		return fmt.Errorf("keep this thread's rights: %w", err)
	}
	return nil
}

// back is who the machine's root is; a thread that can't become that again ends with its goroutine.
func back() {
	err := errors.Join(unix.Setfsuid(0), unix.Setfsgid(0))
	uid, uidErr := unix.SetfsuidRetUid(-1)
	gid, gidErr := unix.SetfsgidRetGid(-1)
	if errors.Join(err, uidErr, gidErr) != nil || uid != 0 || gid != 0 {
		runtime.LockOSThread() // one lock too many
	}
}
