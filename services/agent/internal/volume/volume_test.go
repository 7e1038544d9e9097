package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/services/agent/internal/volume"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(s *volume.Store, name string) error {
	finish, err := s.Detach(name)
	if err != nil {
		return err
	}
	return finish()
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestOneMakesIt: of many who use a new volume at once each finds it filled, by one of them, whole.
func TestOneMakesIt(t *testing.T) {
	s := volume.New(t.TempDir(), t.TempDir())
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			data, err := s.Named("v", volume.About{Labels: map[string]string{"a": "b"}}, func(dir string) error {
				return errors.Join(os.WriteFile(filepath.Join(dir, "1"), nil, 0o600), os.WriteFile(filepath.Join(dir, "2"), nil, 0o600))
			})
			if err != nil {
				t.Error(err)
				return
			}
			if entries, err := os.ReadDir(data); err != nil || len(entries) != 2 {
				t.Errorf("found %v, %v", entries, err)
			}
		})
	}
	wg.Wait()
	if all, err := s.List(); err != nil || len(all) != 1 || all[0].Labels["a"] != "b" || all[0].Made.IsZero() {
		t.Errorf("%v, %v", all, err)
	}
}

// TestFailedFill: a volume that could not be filled is not there, and the next one who uses it fills it.
func TestFailedFill(t *testing.T) {
	s := volume.New(t.TempDir(), t.TempDir())
	broken := errors.New("disk full")
	if _, err := s.Named("v", volume.About{}, func(string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	data, err := s.Named("v", volume.About{}, func(dir string) error { return os.WriteFile(filepath.Join(dir, "x"), nil, 0o600) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(data, "x")); err != nil {
		t.Error(err)
	}
}

// linked is a volume with links in it, and a secret beside it.
func linked(t *testing.T) (s *volume.Store, data, secret, pins string) {
	t.Helper()
	dir := t.TempDir()
	pins = t.TempDir()
	s = volume.New(dir, pins)
	secret = filepath.Join(dir, "secret")
	write(t, secret, "of the node")
	data, err := s.Named("v", volume.About{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(data, "inside"), "of the volume")
	for name, to := range map[string]string{"away": secret, "up": "../../../secret", "near": "/inside", "root": "/"} {
		if err := os.Symlink(to, filepath.Join(data, name)); err != nil {
			t.Fatal(err)
		}
	}
	return s, data, secret, pins
}

// TestLinksLeadNowhere: a link in a volume leads to nothing outside of it, however it is written.
func TestLinksLeadNowhere(t *testing.T) {
	s, data, _, _ := linked(t)
	for n, name := range []string{"away", "up", "none", "root/../../secret"} {
		if part, err := s.Part("c.0", n, data, name, nil); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s leads to %s, %v", name, part, err)
		}
	}
	if err := s.Release("c.0"); err != nil {
		t.Error(err)
	}
}

// TestPart: a link that is changed after the look-up changes nothing; when the container is gone its own things are, and
// nothing of the volume.
func TestPart(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	s, data, secret, pins := linked(t)
	part, err := s.Part("c.0", 7, data, "near", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(data, "near")), os.Symlink(secret, filepath.Join(data, "near"))); err != nil {
		t.Fatal(err)
	}
	if got := read(t, part); got != "of the volume" {
		t.Errorf("the part is %q", got)
	}
	whole, err := s.Part("c.0", 8, data, ".", nil)
	if err != nil {
		t.Fatal(err)
	}
	own, err := s.Own("c.0", 9, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{part, whole, own, filepath.Join(pins, "c.0")} {
		if _, err := os.Lstat(gone); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s is left: %v", gone, err)
		}
	}
	if got := read(t, filepath.Join(data, "inside")); got != "of the volume" {
		t.Errorf("the volume has %q", got)
	}
}

// TestIncarnation: a volume that the cluster has given up is put aside, with what is in it, when its slot comes back to the node;
// one of which nobody knows the incarnation is taken over.
func TestIncarnation(t *testing.T) {
	s := volume.New(t.TempDir(), t.TempDir())
	use := func(incarnation string) string {
		t.Helper()
		data, err := s.Named("db.1.data", volume.About{Service: "db", Slot: 1, Incarnation: incarnation}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	write(t, filepath.Join(use(""), "x"), "first")
	if got := read(t, filepath.Join(use("aaaaaaaaaaaa"), "x")); got != "first" {
		t.Errorf("taken over with %q", got)
	}
	if got := read(t, filepath.Join(use("aaaaaaaaaaaa"), "x")); got != "first" {
		t.Errorf("came back with %q", got)
	}
	if entries, err := os.ReadDir(use("bbbbbbbbbbbb")); err != nil || len(entries) != 0 {
		t.Errorf("begins anew with %v, %v", entries, err)
	}
	all, err := s.List()
	if err != nil || len(all) != 2 || all[0].Incarnation != "bbbbbbbbbbbb" || all[1].Name != "db.1.data.given-up-aaaaaaaa" {
		t.Fatalf("%+v, %v", all, err)
	}
	if got := read(t, filepath.Join(all[1].Path, "x")); got != "first" {
		t.Errorf("put aside with %q", got)
	}
}

// TestRemove: what was removed is gone, whole, and what a power cut left of a removal goes at the next sweep; a link in a volume
// leads nowhere out of it.
func TestRemove(t *testing.T) {
	s, data, secret, _ := linked(t)
	write(t, filepath.Join(data, "x"), "")
	left := filepath.Join(filepath.Dir(filepath.Dir(data)), ".gone-1")
	if err := os.MkdirAll(filepath.Join(left, "volume"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(remove(s, "v"), s.Sweep(func(string) bool { return true })); err != nil {
		t.Fatal(err)
	}
	if err := remove(s, "v"); !errs.Is(err, errs.NotFound) {
		t.Errorf("again: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(left)); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	read(t, secret)
}

// TestDetached: a volume that is being removed is away at once, and the next one of its name is new; deleting its data, which takes as
// long as it takes, comes after.
func TestDetached(t *testing.T) {
	s, data, _, _ := linked(t)
	finish, err := s.Detach("v")
	if err != nil {
		t.Fatal(err)
	}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Errorf("listed %v, %v", all, err)
	}
	if _, err := s.Named("v", volume.About{}, nil); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(data); err != nil || len(entries) != 0 {
		t.Errorf("the new one has %v, %v", entries, err)
	}
	if err := finish(); err != nil {
		t.Error(err)
	}
	if all, err := s.List(); err != nil || len(all) != 1 {
		t.Errorf("listed %v, %v", all, err)
	}
}

// TestNameOfASlotsVolume: a mount that is no slot's does not get a slot's volume by its name, and a slot does not get what somebody made
// under the name of its volume. What was given up is anybody's.
func TestNameOfASlotsVolume(t *testing.T) {
	s := volume.New(t.TempDir(), t.TempDir())
	slot := func(incarnation string) volume.About {
		return volume.About{Service: "db", Slot: 1, Incarnation: incarnation}
	}
	use := func(name string, a volume.About, want errs.Kind) {
		t.Helper()
		if _, err := s.Named(name, a, nil); errs.KindOf(err) != want {
			t.Errorf("%s for %+v: %v, want %v", name, a, err, want)
		}
	}
	use("db.1.data", slot("aaaaaaaa"), errs.None)
	use("db.1.data", volume.About{}, errs.Precondition)
	use("db.1.data", slot("bbbbbbbb"), errs.None)
	use("db.1.data.given-up-aaaaaaaa", volume.About{}, errs.None)
	use("db.2.data", volume.About{Labels: map[string]string{"a": "b"}}, errs.None)
	use("db.2.data", slot("aaaaaaaa"), errs.Precondition)
	use("db.2.data", slot(""), errs.Precondition)
}

// TestLongNameIsGivenUp: what is put aside has a name that can be typed, however long the volume's was.
func TestLongNameIsGivenUp(t *testing.T) {
	s := volume.New(t.TempDir(), t.TempDir())
	long := strings.Repeat("s", state.MaxVolumeName-7) + ".1.data"
	for _, incarnation := range []string{"aaaaaaaaaaaa", "bbbbbbbbbbbb"} {
		if _, err := s.Named(long, volume.About{Service: "s", Slot: 1, Incarnation: incarnation}, nil); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, v := range all {
		if !state.ValidVolume(v.Name) {
			t.Errorf("%s (%d) is no name", v.Name, len(v.Name))
		}
		if err := remove(s, v.Name); err != nil {
			t.Error(err)
		}
	}
}

// TestDescriptionIsWhole: a description that could not be written, for the disk was full, leaves the one before.
func TestDescriptionIsWhole(t *testing.T) {
	dir := t.TempDir()
	s := volume.New(dir, t.TempDir())
	data, err := s.Named("db.1.data", volume.About{Service: "db", Slot: 1, Labels: map[string]string{"a": "b"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Nothing can be written where the new one would be.
	if err := os.Mkdir(filepath.Join(filepath.Dir(data), "volume.json.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Named("db.1.data", volume.About{Service: "db", Slot: 1, Incarnation: "aaaaaaaa"}, nil); err == nil {
		t.Error("written nowhere")
	}
	if all, err := s.List(); err != nil || len(all) != 1 || all[0].Labels["a"] != "b" || all[0].Service != "db" {
		t.Errorf("%+v, %v", all, err)
	}
}
