// Package tokenfile reads a join token from where other users of the machine don't see it, as they do in a command line: a
// file that only its owner may read, or the standard input.
package tokenfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

const (
	// Stdin is the name of the file that is none.
	Stdin = "-"
	// most is far more than a token takes: what is larger is another file.
	most = 4 << 10
	// othersMay are the rights that nobody but a secret's owner has.
	othersMay = fs.FileMode(0o077)
)

// Read returns the token in the named file, or in what comes in (nil: nothing does) if the name is Stdin. A file that is not
// there is no token: who starts containers calls join each time, also when the file has long been removed.
func Read(files run.Files, in io.Reader, name string) (string, error) {
	var text []byte
	var err error
	switch {
	case name != Stdin:
		text, err = secret(files, name)
	case in != nil:
		text, err = io.ReadAll(io.LimitReader(in, most+1))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("--token-file %s: %w", name, err)
	}
	if len(text) > most {
		return "", errs.New(errs.Invalid, "--token-file %s: this is no token, it has more than %d bytes", name, most)
	}
	return strings.TrimSpace(string(text)), nil
}

// secret refuses a file that others may read, as ssh does with a key: they may know the token by now.
func secret(files run.Files, name string) ([]byte, error) {
	info, err := files.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errs.New(errs.Invalid, "this is a folder; name the file in it")
	}
	if info.Mode()&othersMay != 0 {
		return nil, errs.New(errs.Precondition, "others may read it, or write to it (its mode is %04o); `chmod 600 %s`, and if somebody may have read it, "+
			"`shoal join-token --rotate worker` or manager on a manager", info.Mode().Perm(), name)
	}
	if info.Size() > most {
		return nil, errs.New(errs.Invalid, "this is no token, it has %d bytes", info.Size())
	}
	return files.Read(name)
}

// Missing says that there was no token where it was looked for.
func Missing(name string) error {
	if name == Stdin {
		name = "the standard input"
	}
	return errs.New(errs.Invalid, "there is no token in %s; `shoal join-token -q worker` on a manager prints it", name)
}
