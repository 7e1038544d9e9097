package logfile

import (
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
)

// Pack compresses one file that is not written any more. One that has gone meanwhile is no error. A reader that has it
// open reads on.
func Pack(dir string, number uint64) error {
	from, err := os.Open(nameOf(dir, number, plain))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer from.Close()
	tmp := nameOf(dir, number, packed+".tmp")
	if err := pack(from, tmp); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if _, err := os.Stat(from.Name()); err != nil { // rotation has let go of it: it must not come back
		return os.Remove(tmp)
	}
	if err := os.Rename(tmp, nameOf(dir, number, packed)); err != nil {
		return err
	}
	return os.Remove(from.Name())
}

func pack(from io.Reader, to string) (err error) {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := io.Copy(z, from); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return f.Sync() // before the plain one goes
}
