package logger

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// small is the program that is nothing but a logger. The agent's own is one as well, but takes seven times as long to start.
const small = "shoal-logger"

// Program is the file that containerd is to start as logger: the small one that lies beside this process's own, or, where there is none,
// this process's own. If at is not empty, it is a copy there, which is made when it is not there or is of another build.
// Loggers that run keep the file that they were started from.
func Program(at string) (string, error) {
	own, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program's file: %w", err)
	}
	return program(own, at)
}

func program(own, at string) (string, error) {
	if self, err := os.Stat(own); err == nil && at != "" { // named by hand: nothing is put over it
		if there, err := os.Stat(at); err == nil && os.SameFile(self, there) {
			return at, nil
		}
	}
	if beside := filepath.Join(filepath.Dir(own), small); runs(beside) {
		own = beside
	}
	if at == "" || at == own {
		return own, nil
	}
	from, err := os.Open(own)
	if err != nil {
		return "", fmt.Errorf("read the logger's file: %w", err)
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
		return "", fmt.Errorf("put a copy of the logger at %s: %w", at, err)
	}
	return at, nil
}

// runs says that a file is a program.
func runs(file string) bool {
	at, err := os.Stat(file)
	return err == nil && at.Mode().IsRegular() && at.Mode()&0o111 != 0
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
