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
)

// givenUp is between the name of a volume that was put aside and the beginning of its incarnation.
const givenUp = ".given-up-"

// asideMark is how much of an incarnation names what was put aside.
const asideMark = 8

func write(place string, a About) error {
	text, err := json.Marshal(a)
	if err == nil {
		err = os.WriteFile(filepath.Join(place, "volume.json"), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write down what a volume is: %w", err)
	}
	return nil
}

// read is what was written down; nothing when that can't be read.
func read(place string) (a About) {
	if text, err := os.ReadFile(filepath.Join(place, "volume.json")); err != nil || json.Unmarshal(text, &a) != nil {
		return About{}
	}
	return a
}

// renew puts a volume aside that the cluster has given up meanwhile, so that its slot begins anew and nobody's data is lost. One
// of which nobody knows the incarnation is taken for the one that is meant.
func (s *Store) renew(name string, want About) error {
	place := filepath.Join(s.dir, "named", name)
	if _, err := os.Stat(place); err != nil {
		return nil //nolint:nilerr // it is not there yet; what else may be wrong is told by who makes it
	}
	a := read(place)
	switch a.Incarnation {
	case want.Incarnation:
		return nil
	case "":
		want.Labels = a.Labels
		return write(place, want)
	}
	aside := place + givenUp + a.Incarnation[:min(asideMark, len(a.Incarnation))]
	if err := os.Rename(place, aside); err != nil {
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
		info, err := os.Stat(filepath.Join(place, "volume.json"))
		if strings.HasPrefix(e.Name(), ".") || errors.Is(err, fs.ErrNotExist) {
			continue // unfinished, or on its way out
		}
		f := Found{Name: e.Name(), Path: filepath.Join(place, "data"), About: read(place)}
		if err == nil {
			f.Made = info.ModTime()
		}
		out = append(out, f)
	}
	return out, nil
}

// Remove deletes a named volume with all that is in it. Who uses it is for the caller to know. Its name is free at once; NotFound:
// there is none.
func (s *Store) Remove(name string) error {
	named := filepath.Join(s.dir, "named")
	doomed, err := os.MkdirTemp(named, ".gone-")
	if errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.NotFound, "there is no volume %q on this node", name)
	}
	if err != nil {
		return fmt.Errorf("remove a volume: %w", err)
	}
	err = os.Rename(filepath.Join(named, name), filepath.Join(doomed, "volume"))
	if errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(doomed) // Sweep would find it
		return errs.New(errs.NotFound, "there is no volume %q on this node", name)
	}
	if err != nil {
		return fmt.Errorf("remove a volume: %w", err)
	}
	if err := os.RemoveAll(doomed); err != nil { // follows no link
		return fmt.Errorf("remove what was in a volume: %w", err)
	}
	return nil
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
