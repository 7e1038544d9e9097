package testx

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Files is a run.Files in memory. The zero value is not ready: use NewFiles. Directories are there as long as something
// is in them.
type Files struct {
	mu    sync.Mutex // guards files
	files map[string]file
}

type file struct {
	data    []byte
	mode    fs.FileMode
	changed time.Time
}

// NewFiles is empty.
func NewFiles() *Files { return &Files{files: map[string]file{}} }

// Read returns a copy of the content.
func (f *Files) Read(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	got, ok := f.files[path.Clean(name)]
	switch {
	case ok:
		return slices.Clone(got.data), nil
	case f.isDir(path.Clean(name)):
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// Write keeps a copy of data.
func (f *Files) Write(name string, data []byte, mode fs.FileMode) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.write(path.Clean(name), data, mode)
}

// Create keeps a copy of data, unless there is a file of that name.
func (f *Files) Create(name string, data []byte, mode fs.FileMode) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = path.Clean(name)
	if _, ok := f.files[name]; ok {
		return &fs.PathError{Op: "link", Path: name, Err: fs.ErrExist}
	}
	return f.write(name, data, mode)
}

// write needs the lock.
func (f *Files) write(name string, data []byte, mode fs.FileMode) error {
	if f.isDir(name) {
		return &fs.PathError{Op: "rename", Path: name, Err: errors.New("is a directory")}
	}
	for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) {
		if _, ok := f.files[dir]; ok {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: errors.New("not a directory")}
		}
	}
	f.files[name] = file{data: slices.Clone(data), mode: mode.Perm(), changed: time.Now()}
	return nil
}

// Remove deletes a file; an empty directory is gone already.
func (f *Files) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = path.Clean(name)
	if f.isDir(name) {
		return &fs.PathError{Op: "remove", Path: name, Err: errors.New("directory not empty")}
	}
	delete(f.files, name)
	return nil
}

// List has files and directories.
func (f *Files) List(dir string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir = path.Clean(dir)
	if _, ok := f.files[dir]; ok {
		return nil, &fs.PathError{Op: "readdir", Path: dir, Err: errors.New("not a directory")}
	}
	var names []string
	for name := range f.files {
		if rest, ok := strings.CutPrefix(name, below(dir)); ok {
			first, _, _ := strings.Cut(rest, "/")
			names = append(names, first)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Stat describes a file or directory.
func (f *Files) Stat(name string) (fs.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clean := path.Clean(name)
	if got, ok := f.files[clean]; ok {
		return info{name: path.Base(clean), file: got}, nil
	}
	if f.isDir(clean) {
		return info{name: path.Base(clean), file: file{mode: fs.ModeDir | 0o700}}, nil
	}
	return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}

// isDir needs the lock.
func (f *Files) isDir(name string) bool {
	for other := range f.files {
		if strings.HasPrefix(other, below(name)) {
			return true
		}
	}
	return false
}

// below is what the names in a directory begin with.
func below(dir string) string {
	switch dir {
	case ".":
		return ""
	case "/":
		return "/"
	}
	return dir + "/"
}

// info implements fs.FileInfo.
type info struct {
	name string
	file
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return int64(len(i.data)) }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return i.changed }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }
