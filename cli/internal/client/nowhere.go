package client

import "io/fs"

// nowhere is the disk of a directory that comes from the context and need not be kept.
type nowhere struct{}

func (nowhere) Read(name string) ([]byte, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}
func (nowhere) Write(string, []byte, fs.FileMode) error { return nil }

// Create keeps nothing.
func (nowhere) Create(string, []byte, fs.FileMode) error { return nil }
func (nowhere) Remove(string) error                      { return nil }
func (nowhere) List(string) ([]string, error)            { return nil, nil }
func (nowhere) Stat(name string) (fs.FileInfo, error) {
	return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}
