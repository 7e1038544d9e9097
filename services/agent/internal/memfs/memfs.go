// Package memfs keeps the files of secrets and configs in memory, where only their container sees them.
//
// It owns one tmpfs of the machine with a folder for each container, whose files are mounted into it one by one. What is in
// them must never touch a disk, a log or an error, and goes with the container. They outlive the agent: a container that runs
// on keeps its files. A Vault is safe for concurrent use.
package memfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// share of the machine's memory that all files together may take.
const share = "size=25%"

// Vault is the machine's.
type Vault struct {
	root string

	mu sync.Mutex // the file system is mounted, and given back, between two uses
}

// New makes one whose file system is at root.
func New(root string) *Vault { return &Vault{root: root} }

// Make writes the files of a container anew and says what to mount where. No files need nothing.
func (v *Vault) Make(_ context.Context, id string, files []container.File) ([]container.Bind, error) {
	if len(files) == 0 {
		return nil, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.mount(); err != nil {
		return nil, err
	}
	dir := filepath.Join(v.root, id)
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("remove files of container %s: %w", id, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for files of container %s: %w", id, err)
	}
	binds := make([]container.Bind, 0, len(files))
	for i, f := range files {
		name := filepath.Join(dir, strconv.Itoa(i))
		if err := write(name, f); err != nil {
			return nil, fmt.Errorf("write %s of container %s: %w", f.Path, id, err)
		}
		binds = append(binds, container.Bind{From: name, To: f.Path})
	}
	return binds, nil
}

// write makes the file unreadable first: it has its owner and mode before it has its data.
func write(name string, f container.File) error {
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o200)
	if err != nil {
		return err
	}
	err = out.Chown(int(f.UID), int(f.GID))
	if err == nil {
		err = out.Chmod(os.FileMode(f.Mode & 0o777))
	}
	if err == nil {
		_, err = out.Write(f.Data)
	}
	return errors.Join(err, out.Close())
}

// mount makes the file system, unless the place is in memory already: a container's agent can't mount, and has /run of the
// machine. What does not know noswap, a kernel before 6.4, may write the files into its swap.
func (v *Vault) mount() error {
	if err := os.MkdirAll(v.root, 0o700); err != nil {
		return fmt.Errorf("make the folder for files of containers: %w", err)
	}
	var is unix.Statfs_t
	if err := unix.Statfs(v.root, &is); err != nil {
		return fmt.Errorf("look at %s: %w", v.root, err)
	}
	if is.Type == unix.TMPFS_MAGIC {
		return nil
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err := unix.Mount("shoal", v.root, "tmpfs", flags, "mode=0700,noswap,"+share)
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("shoal", v.root, "tmpfs", flags, "mode=0700,"+share)
	}
	if err != nil {
		return fmt.Errorf("mount memory at %s: %w", v.root, err)
	}
	return nil
}

// Remove takes the files of a container away. That there are none is no error.
func (v *Vault) Remove(_ context.Context, id string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := os.RemoveAll(filepath.Join(v.root, id)); err != nil {
		return fmt.Errorf("remove files of container %s: %w", id, err)
	}
	return nil
}

// Sweep removes what nobody keeps, and the file system itself when nothing is left in it.
func (v *Vault) Sweep(_ context.Context, keep func(id string) bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	entries, err := os.ReadDir(v.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list files of containers: %w", err)
	}
	left := 0
	var failed []error
	for _, e := range entries {
		if keep(e.Name()) {
			left++
			continue
		}
		failed = append(failed, os.RemoveAll(filepath.Join(v.root, e.Name())))
	}
	if left == 0 && errors.Join(failed...) == nil {
		if err := unix.Unmount(v.root, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", v.root, err)
		}
		failed = append(failed, os.Remove(v.root))
	}
	return errors.Join(failed...)
}
