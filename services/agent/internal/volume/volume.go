// Package volume keeps the volumes of this machine: folders that outlive the containers that use them.
//
// Another kind of volume (CSI) would stand beside this package, behind the executor's look for the source of a mount.
//
// It owns the folder of named volumes, that of volumes which end with their container, and the mounts by which a container
// sees a part of a volume. It must never remove a named volume, nor follow a link out of one: what is in a volume was
// written by containers. Making a volume is one rename, so that nobody sees half of one, and of two who make the same volume
// at once one wins. Everything is safe for concurrent use.
package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/userns"
)

// Store is the folders of one machine.
type Store struct {
	dir  string // on disk: named/NAME, own/CONTAINER/N
	pins string // ends with the machine's power: CONTAINER/N, mounts of parts of volumes
}

// New makes nothing yet. In dir is what must outlive the machine's power, in pins what must not.
func New(dir, pins string) *Store { return &Store{dir: dir, pins: pins} }

// Fill puts something into a new volume; nil leaves it empty.
type Fill func(dir string) error

// About is what is kept beside a volume's data.
type About struct {
	Labels map[string]string `json:"labels,omitempty"`
	// Service and Slot say whose it is, if it is a slot's own; slot 0 is of a service that has one task on each node.
	Service string `json:"service,omitempty"`
	Slot    uint64 `json:"slot,omitempty"`
	// Incarnation is the cluster's: a volume of the same name that was given up has another one.
	Incarnation string `json:"incarnation,omitempty"`
}

// Named is the folder of a volume, which is made if it is not there. What is said of it and fill are only for a new one.
// Precondition: one of the name is there and is another.
func (s *Store) Named(name string, a About, fill Fill) (string, error) {
	if err := s.meant(name, a); err != nil {
		return "", err
	}
	if a.Incarnation != "" {
		if err := s.renew(name, a); err != nil {
			return "", err
		}
	}
	return s.use(filepath.Join(s.dir, "named", name), a, fill)
}

// Own is the folder of a container's own volume, which ends with the container.
func (s *Store) Own(container string, n int, labels map[string]string, fill Fill) (string, error) {
	return s.use(filepath.Join(s.dir, "own", container, strconv.Itoa(n)), About{Labels: labels}, fill)
}

func (s *Store) use(place string, a About, fill Fill) (string, error) {
	data := filepath.Join(place, "data")
	if _, err := os.Stat(data); err == nil {
		return data, nil
	}
	if err := os.MkdirAll(filepath.Dir(place), 0o711); err != nil {
		return "", fmt.Errorf("make the folder of volumes: %w", err)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(place), ".new-")
	if err != nil {
		return "", fmt.Errorf("make a volume: %w", err)
	}
	defer func() { _ = os.RemoveAll(fresh) }() // after a success there is nothing
	if err := create(fresh, a, fill); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, place); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return "", fmt.Errorf("make a volume: %w", err)
	}
	return data, nil // ours, or that of who was faster
}

func create(place string, a About, fill Fill) error {
	data := filepath.Join(place, "data")
	if err := errors.Join(os.Chmod(place, 0o711), os.Mkdir(data, 0o755)); err != nil {
		return fmt.Errorf("make a volume: %w", err)
	}
	if err := write(place, a); err != nil {
		return err
	}
	if fill == nil {
		return nil
	}
	return fill(data)
}

// Part is the path of what is at subpath in a volume, for one mount of a container. A link in the volume may lead about in
// it, never out of it: the kernel looks it up as if the volume were all that there is, and what was found is held by a mount,
// so that a container that changes a link later changes nothing. Users is the container's own user namespace; nil: it has none.
func (s *Store) Part(container string, n int, data, subpath string, users *os.File) (string, error) {
	root, err := unix.Open(data, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open a volume: %w", err)
	}
	defer unix.Close(root)
	found, err := unix.Openat2(root, subpath, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return "", errs.New(errs.Invalid, "there is no %q in the volume on this node: %s", subpath, err)
	}
	defer unix.Close(found)
	pin := filepath.Join(s.pins, container, strconv.Itoa(n))
	if err := place(pin, found); err != nil {
		return "", err
	}
	if users != nil {
		return pin, userns.Mount(found, "", users, pin, userns.Tree{Recursive: true})
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(found), pin, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("mount a part of a volume: %w", err)
	}
	// Where the machine's mounts are shared, as systemd makes them, what is unmounted here would else be unmounted in the volume too.
	if err := unix.Mount("", pin, "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return "", errors.Join(fmt.Errorf("mount a part of a volume: %w", err), unpin(pin))
	}
	return pin, nil
}

// Mapped is a mount, for one container, of what is at source, with the owners of its user namespace. Invalid: the file system there
// can't have others.
func (s *Store) Mapped(container, name, source string, users *os.File, t userns.Tree) (string, error) {
	found, err := unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", source, err)
	}
	defer unix.Close(found)
	pin := filepath.Join(s.pins, container, name)
	if err := place(pin, found); err != nil {
		return "", err
	}
	if err := userns.Mount(found, "", users, pin, t); err != nil {
		return "", fmt.Errorf("%s: %w", source, err)
	}
	return pin, nil
}

// place makes what a mount can stand on: a file for a file, a folder for a folder.
func place(pin string, found int) error {
	if err := unpin(pin); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(found, &st); err != nil {
		return fmt.Errorf("look at a part of a volume: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(pin), 0o700); err != nil {
		return fmt.Errorf("make a place for a mount: %w", err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return os.Mkdir(pin, 0o700)
	}
	return os.WriteFile(pin, nil, 0o600)
}

// unpin removes the mount and what it stood on. Remove takes one empty thing: were the mount still there it would fail, and
// never reach into the volume.
func unpin(pin string) error {
	err := unix.Unmount(pin, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount a part of a volume: %w", err)
	}
	if err := os.Remove(pin); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the place of a mount: %w", err)
	}
	return nil
}

// Release removes what was only for this container: its own volumes and its mounts. Named volumes stay.
func (s *Store) Release(container string) error {
	pins, err := os.ReadDir(filepath.Join(s.pins, container))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list a container's mounts: %w", err)
	}
	for _, pin := range pins {
		if err := unpin(filepath.Join(s.pins, container, pin.Name())); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(s.pins, container)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a container's mounts: %w", err)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "own", container)); err != nil {
		return fmt.Errorf("remove a container's own volumes: %w", err)
	}
	return nil
}

// Sweep releases what containers have left that nobody keeps, and removes volumes that were never finished.
func (s *Store) Sweep(keep func(container string) bool) error {
	var failed []error
	for _, dir := range []string{filepath.Join(s.dir, "own"), s.pins} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("list volumes: %w", err))
		}
		for _, e := range entries {
			if !keep(e.Name()) {
				failed = append(failed, s.Release(e.Name()))
			}
		}
	}
	return errors.Join(append(failed, s.clear())...)
}
