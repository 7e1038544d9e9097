package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
)

// givenUp is between the name of a volume that was put aside and the beginning of its incarnation.
const givenUp = ".given-up-"

// asideMark is how much of an incarnation names what was put aside.
const asideMark = 8

// aboutFile says what a volume is, freshFile what it will be once that is whole.
const aboutFile, freshFile = "volume.json", "volume.json.new"

// write puts a whole description in the place of another: a power cut or a full disk leaves the one or the other.
func write(place string, a About) error {
	text, err := json.Marshal(a)
	if err == nil {
		err = writeThrough(filepath.Join(place, freshFile), text)
	}
	if err == nil {
		err = os.Rename(filepath.Join(place, freshFile), filepath.Join(place, aboutFile))
	}
	if err != nil {
		return fmt.Errorf("write down what a volume is: %w", err)
	}
	return nil
}

// writeThrough writes a file that is on the disk when it returns.
func writeThrough(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// read is what was written down; nothing, and false, when that can't be read.
func read(place string) (a About, ok bool) {
	if text, err := os.ReadFile(filepath.Join(place, aboutFile)); err != nil || json.Unmarshal(text, &a) != nil {
		return About{}, false
	}
	return a, true
}

// meant says whether a volume that is there is the one that is meant: a slot's is for its slot alone, however another's name is
// spelt, and a slot does not write into another's data. What was put aside is nobody's.
func (s *Store) meant(name string, want About) error {
	place := filepath.Join(s.dir, "named", name)
	had, ok := read(place)
	switch {
	case !ok || strings.Contains(name, givenUp):
	case had.Service != "" && want.Service == "":
		return errs.New(errs.Precondition, "volume %s is that of a slot of service %s; only its tasks may use it, by a mount with scope=slot", name, had.Service)
	case had.Service == "" && want.Service != "":
		return errs.New(errs.Precondition,
			"volume %s on this node was made by hand, or by a mount without scope=slot: it is not this slot's; remove it, or give the mount another source", name)
	}
	return nil
}

// renew puts a volume aside that the cluster has given up meanwhile, so that its slot begins anew and nobody's data is lost. One
// of which nobody knows the incarnation is taken for the one that is meant.
func (s *Store) renew(name string, want About) error {
	place := filepath.Join(s.dir, "named", name)
	if _, err := os.Stat(place); err != nil {
		return nil //nolint:nilerr // it is not there yet; what else may be wrong is told by who makes it
	}
	a, _ := read(place)
	switch a.Incarnation {
	case want.Incarnation:
		return nil
	case "":
		want.Labels = a.Labels
		return write(place, want)
	}
	// A long name loses its end, or nobody could name what was put aside.
	mark := givenUp + a.Incarnation[:min(asideMark, len(a.Incarnation))]
	aside := name[:min(len(name), state.MaxVolumeName-len(mark))] + mark
	if err := os.Rename(place, filepath.Join(s.dir, "named", aside)); err != nil {
		return fmt.Errorf("put a volume aside that was given up: %w", err)
	}
	return nil
}

// Found is a named volume.
type Found struct {
	About
	Name string
	Made time.Time
	// Path is the folder of its data.
	Path string
}

// List is the named volumes, by name.
func (s *Store) List() ([]Found, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "named"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var out []Found
	for _, e := range entries {
		place := filepath.Join(s.dir, "named", e.Name())
		info, err := os.Stat(filepath.Join(place, aboutFile))
		if strings.HasPrefix(e.Name(), ".") || errors.Is(err, fs.ErrNotExist) {
			continue // unfinished, or on its way out
		}
		about, _ := read(place)
		f := Found{Name: e.Name(), Path: filepath.Join(place, "data"), About: about}
		if err == nil {
			f.Made = info.ModTime()
		}
		out = append(out, f)
	}
	return out, nil
}

// Detach takes a named volume away, so that its name is free at once; remove then deletes all that is in it, which may take long. Who
// uses it is for the caller to know. NotFound: there is none.
func (s *Store) Detach(name string) (remove func() error, err error) {
	named := filepath.Join(s.dir, "named")
	doomed, err := os.MkdirTemp(named, ".gone-")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "there is no volume %q on this node", name)
	}
	if err != nil {
		return nil, fmt.Errorf("remove a volume: %w", err)
	}
	err = os.Rename(filepath.Join(named, name), filepath.Join(doomed, "volume"))
	if errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(doomed) // Sweep would find it
		return nil, errs.New(errs.NotFound, "there is no volume %q on this node", name)
	}
	if err != nil {
		return nil, fmt.Errorf("remove a volume: %w", err)
	}
	return func() error {
		if err := os.RemoveAll(doomed); err != nil { // follows no link
			return fmt.Errorf("remove what was in a volume: %w", err)
		}
		return nil
	}, nil
}

// clear removes what a power cut has left of volumes that were being made or removed.
func (s *Store) clear() error {
	named := filepath.Join(s.dir, "named")
	entries, err := os.ReadDir(named)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list volumes: %w", err)
	}
	var failed []error
	for _, e := range slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !strings.HasPrefix(e.Name(), ".gone-") }) {
		failed = append(failed, os.RemoveAll(filepath.Join(named, e.Name())))
	}
	return errors.Join(failed...)
}
