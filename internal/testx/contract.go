package testx

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"
	"testing"

	"github.com/shoalproject/shoal/internal/run"
)

// FilesContract is what every run.Files promises; root is a directory that may be written to and is not there yet.
func FilesContract(t *testing.T, files run.Files, root string) {
	c := contract{files, root}
	t.Run("absent", c.absent)
	t.Run("written", c.written)
	t.Run("refused", c.refused)
	t.Run("removed", c.removed)
	t.Run("created", c.created)
	t.Run("created once", func(t *testing.T) { createdOnce(t, files, c.at("once")) })
	t.Run("whole", func(t *testing.T) { wholeOrNothing(t, files, c.at("whole")) })
}

// contract is checked in the order of its methods: each works on what the ones before have left.
type contract struct {
	files run.Files
	root  string
}

func (c contract) at(name string) string { return path.Join(c.root, name) }

func (c contract) absent(t *testing.T) {
	if _, err := c.files.Read(c.at("none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.files.Stat(c.at("none/below")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
	if names, err := c.files.List(c.at("none")); names != nil || err != nil {
		t.Errorf("list: %q, %v", names, err)
	}
	if err := c.files.Remove(c.at("none")); err != nil {
		t.Errorf("remove: %v", err)
	}
}

func (c contract) written(t *testing.T) {
	for _, w := range [][2]string{{"a/b/key", "one"}, {"a/b/key", "two"}, {"a/c", ""}} {
		if err := c.files.Write(c.at(w[0]), []byte(w[1]), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := c.files.Read(c.at("a/b/key")); string(got) != "two" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	info, err := c.files.Stat(c.at("a/b/key"))
	if err != nil || info.Mode() != 0o640 || info.Size() != 3 || info.Name() != "key" {
		t.Errorf("stat %v, %v", info, err)
	}
	if info, err := c.files.Stat(c.at("a/b")); err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
		t.Errorf("stat of the directory: %v, %v", info, err)
	}
	if names, err := c.files.List(c.at("a")); !slices.Equal(names, []string{"b", "c"}) || err != nil {
		t.Errorf("list %q, %v", names, err)
	}
}

func (c contract) refused(t *testing.T) {
	for _, name := range []string{"a/b", "a/c/below"} { // a directory is there; a file is where a directory has to be
		if err := c.files.Write(c.at(name), []byte("x"), 0o600); err == nil {
			t.Errorf("write to %s worked", name)
		}
	}
	if err := c.files.Remove(c.at("a/b")); err == nil {
		t.Error("a directory with a file in it was removed")
	}
	if _, err := c.files.Read(c.at("a/b")); err == nil {
		t.Error("a directory was read")
	}
	if names, err := c.files.List(c.at("a")); !slices.Equal(names, []string{"b", "c"}) || err != nil {
		t.Errorf("a refusal has left something behind: %q, %v", names, err)
	}
}

func (c contract) removed(t *testing.T) {
	if err := c.files.Remove(c.at("a/b/key")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.files.Read(c.at("a/b/key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read: %v", err)
	}
}

func (c contract) created(t *testing.T) {
	if err := c.files.Create(c.at("new/file"), []byte("first"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := c.files.Create(c.at("new/file"), []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create what is there: %v", err)
	}
	got, err := c.files.Read(c.at("new/file"))
	info, _ := c.files.Stat(c.at("new/file"))
	if string(got) != "first" || err != nil || info.Mode() != 0o640 {
		t.Errorf("read %q of %v, %v", got, info, err)
	}
	if names, err := c.files.List(c.at("new")); !slices.Equal(names, []string{"file"}) || err != nil {
		t.Errorf("list %q, %v", names, err)
	}
}

// createdOnce lets eight create one file at the same moment: one does.
func createdOnce(t *testing.T, files run.Files, name string) {
	heard := make([]error, 8)
	var creators sync.WaitGroup
	for i := range heard {
		creators.Go(func() { heard[i] = files.Create(name, []byte{byte('0' + i)}, 0o600) })
	}
	creators.Wait()
	got, err := files.Read(name)
	if err != nil || len(got) != 1 {
		t.Fatalf("read %q, %v", got, err)
	}
	for i, err := range heard {
		if won := got[0] == byte('0'+i); won && err != nil || !won && !errors.Is(err, fs.ErrExist) {
			t.Errorf("the file says %q, and creator %d heard %v", got, i, err)
		}
	}
}

// wholeOrNothing reads while two write: each read sees one whole content.
func wholeOrNothing(t *testing.T, files run.Files, name string) {
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := range 20 {
				text := make([]byte, 5000)
				for k := range text {
					text[k] = byte('a' + w)
				}
				if err := files.Write(name, text, 0o600); err != nil {
					t.Error(fmt.Errorf("write %d: %w", i, err))
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for {
		got, err := files.Read(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if err == nil && (len(got) != 5000 || slices.ContainsFunc(got, func(b byte) bool { return b != got[0] })) {
			t.Errorf("read %d bytes of more than one write", len(got))
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
