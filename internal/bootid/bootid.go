// Package bootid is the id of this boot of the machine, by which a dispatcher tells a process that came back from a machine
// that did.
//
// It lies in a file of a folder that ends with the machine's power. Whoever creates the file first decides, and others that
// share it take what is there.
package bootid

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

// mode: it is no secret.
const mode fs.FileMode = 0o644

// Of returns the id in the file, and creates it if it is not there.
func Of(env run.Env, file string) (string, error) {
	id, err := read(env.Files, file)
	if id != "" || err != nil {
		return id, err
	}
	var b [16]byte
	_, _ = env.Rand.Read(b[:]) // never fails
	id = hex.EncodeToString(b[:])
	switch err := env.Files.Create(file, []byte(id+"\n"), mode); {
	case err == nil:
		return id, nil
	case !errors.Is(err, fs.ErrExist):
		return "", errs.New(errs.Unavailable, "keep the boot id in %s: %w", file, err)
	}
	if id, err = read(env.Files, file); id != "" || err != nil {
		return id, err
	}
	return "", errs.New(errs.Invalid, "the boot id in %s is empty; remove the file", file)
}

// read returns nothing when there is no file.
func read(files run.Files, file string) (string, error) {
	data, err := files.Read(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", errs.New(errs.Unavailable, "read the boot id in %s: %w", file, err)
	}
	return strings.TrimSpace(string(data)), nil
}
