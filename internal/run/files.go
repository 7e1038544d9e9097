package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tempMark is in the names of files that are being written. A crash may leave one behind; List does not show it.
const tempMark = ".shoal-tmp-"

// machineFiles is the operating system's file system.
type machineFiles struct{}

func (machineFiles) Read(name string) ([]byte, error) { return os.ReadFile(filepath.FromSlash(name)) }

func (machineFiles) Stat(name string) (fs.FileInfo, error) { return os.Stat(filepath.FromSlash(name)) }

func (machineFiles) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.FromSlash(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries { // os.ReadDir sorts
		if !strings.HasPrefix(e.Name(), tempMark) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (machineFiles) Remove(name string) error {
	name = filepath.FromSlash(name)
	err := os.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func (machineFiles) Write(name string, data []byte, mode fs.FileMode) error {
	// The rename replaces the old file in one move.
	return place(filepath.FromSlash(name), data, mode, os.Rename)
}

func (machineFiles) Create(name string, data []byte, mode fs.FileMode) error {
	// Unlike a rename, a link fails when the name is taken.
	return place(filepath.FromSlash(name), data, mode, func(tmp, name string) error {
		if err := os.Link(tmp, name); err != nil {
			return err
		}
		return os.Remove(tmp)
	})
}

// place writes a file under another name and lets move give it its own.
func place(name string, data []byte, mode fs.FileMode, move func(tmp, name string) error) error {
	dir := filepath.Dir(name)
	if err := makeDirs(dir); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	// Step 1: the whole content under another name in the same directory, where nobody looks. CreateTemp opens with 0600,
	// so a key is never readable by others, not even before Chmod.
	tmp, err := os.CreateTemp(dir, tempMark)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := fill(tmp, data, mode); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), os.Remove(tmp.Name()))
	}
	// Step 2: its own name. The content is durable already: the other order could leave an empty file after a power cut.
	if err := move(tmp.Name(), name); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), os.Remove(tmp.Name()))
	}
	// Step 3: the name is durable only when the directory is.
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// fill writes, sets the mode, syncs and closes.
func fill(f *os.File, data []byte, mode fs.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(mode.Perm())
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// makeDirs makes the directory and its parents, each durable in its parent before something is put into it.
func makeDirs(dir string) error {
	err := os.Mkdir(dir, 0o700)
	switch {
	case err == nil:
		return syncDir(filepath.Dir(dir))
	case errors.Is(err, fs.ErrExist):
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = &fs.PathError{Op: "mkdir", Path: dir, Err: errors.New("not a directory")}
		}
		return err
	case errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir:
		if err := makeDirs(filepath.Dir(dir)); err != nil {
			return err
		}
		return makeDirs(dir)
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
