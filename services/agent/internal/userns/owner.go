package userns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// ChangeOwners gives all files below root to a user namespace.
func ChangeOwners(ctx context.Context, root string, ids container.IDs) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		return ChangeOwner(path, ids)
	})
}

// capability is the attribute of a program that gives it rights (xattr(7)).
const capability = "security.capability"

// ChangeOwner gives one file to a user namespace. With its owner a file loses set-user-id bits and capabilities; the namespace's root
// could set them too, so they come back, the capabilities as good in the namespace alone.
func ChangeOwner(path string, ids container.IDs) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("change an owner: %w", err)
	}
	uid, err := ids.Outside(st.Uid)
	gid, wrong := ids.Outside(st.Gid)
	if err != nil || wrong != nil {
		return nil // an id that the container does not have: the file is nobody's, as in a layer with other owners
	}
	kept := make([]byte, 64)
	n, err := unix.Lgetxattr(path, capability, kept)
	if err != nil {
		n = 0 // it has none, or the file system can't
	}
	err = unix.Lchown(path, int(uid), int(gid))
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		err = unix.Chmod(path, st.Mode&0o7777)
	}
	if rooted := rootedCapability(kept[:n], uid-st.Uid); err == nil && rooted != nil {
		err = unix.Lsetxattr(path, capability, rooted, 0)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("change an owner: %w", err)
	}
	return nil
}

// rootedCapability is such an attribute for the user namespace whose root is the machine's user root: version 3 of the form says so
// (linux/capability.h: vfs_ns_cap_data). Nil: there is nothing to write.
func rootedCapability(attribute []byte, root uint32) []byte {
	const words, revisions, third = 20, 0xff000000, 0x03000000 // bytes of version 2; of the first word
	if len(attribute) < words || root == 0 {
		return nil
	}
	first := binary.LittleEndian.Uint32(attribute)
	out := binary.LittleEndian.AppendUint32(nil, first&^revisions|third)
	out = append(out, attribute[4:words]...)
	return binary.LittleEndian.AppendUint32(out, root)
}

// GiveStreams gives the pipes of a process that is about to run to its user, as a runtime does: programs open /dev/stdout anew. In a
// user namespace it can't, since the shim has made those that lead to a logger as the machine's root.
func GiveStreams(pid int) error {
	folder := fmt.Sprintf("/proc/%d", pid)
	status, err := os.ReadFile(folder + "/status")
	if err != nil {
		return errs.New(errs.Precondition, "the container ended before it ran: %w", err)
	}
	uid, gid := effectiveID(status, "Uid:"), effectiveID(status, "Gid:")
	for fd := range 3 {
		stream := fmt.Sprintf("%s/fd/%d", folder, fd)
		var st unix.Stat_t
		if err := unix.Stat(stream, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
			continue // it has none, or it is the machine's /dev/null
		}
		if err := unix.Chown(stream, uid, gid); err != nil {
			return fmt.Errorf("give the container its output: %w", err)
		}
	}
	return nil
}

// effectiveID is the second of the ids in a line of /proc/PID/status; -1, which changes no owner, if there is none.
func effectiveID(status []byte, line string) int {
	_, rest, _ := strings.Cut(string(status), "\n"+line)
	f := strings.Fields(rest)
	if len(f) < 2 {
		return -1
	}
	id, err := strconv.ParseUint(f[1], 10, 32)
	if err != nil {
		return -1
	}
	return int(id)
}
