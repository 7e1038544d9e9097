package logger

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Program is the file that containerd is to start as logger: this process's own, or, if at is not empty, a copy of it there,
// which is made when it is not there or is of another build. Loggers that run keep the file that they were started from.
func Program(at string) (string, error) {
	own, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program's file: %w", err)
	}
	if at == "" || at == own {
		return own, nil
	}
	from, err := os.Open(own)
	if err != nil {
		return "", fmt.Errorf("read this program's file: %w", err)
	}
	defer from.Close()
	mine, err := from.Stat()
	if err != nil {
		return "", err
	}
	if there, err := os.Stat(at); err == nil && (os.SameFile(mine, there) ||
		there.Size() == mine.Size() && there.ModTime().Equal(mine.ModTime())) {
		return at, nil
	}
	if err := install(from, mine, at); err != nil {
		return "", fmt.Errorf("put a copy of this program at %s: %w", at, err)
	}
	return at, nil
}

func install(from io.Reader, like fs.FileInfo, at string) error {
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return err
	}
	tmp := at + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Chtimes(tmp, like.ModTime(), like.ModTime()); err != nil {
		return err
	}
	return os.Rename(tmp, at)
}
