package archive

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// What was packed comes back under another name.
func TestThereAndBack(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "sub", "file"), []byte("text"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/file", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Pack(&b, from, "top"); err != nil {
		t.Fatal(err)
	}
	if err := Unpack(&b, to, "other"); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(to, "other", "link")); err != nil || string(data) != "text" {
		t.Errorf("%q, %v", data, err)
	}
}

// A container may send any archive: nothing of it comes to lie outside the folder.
func TestNothingLeavesTheFolder(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	for name, entries := range map[string][]*tar.Header{
		"a name":          {{Typeflag: tar.TypeReg, Name: "x/../../../evil"}},
		"a link":          {{Typeflag: tar.TypeSymlink, Name: "x/out", Linkname: outside}, {Typeflag: tar.TypeReg, Name: "x/out/evil"}},
		"a relative link": {{Typeflag: tar.TypeSymlink, Name: "x/up", Linkname: "../.."}, {Typeflag: tar.TypeReg, Name: "x/up/evil"}},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range append([]*tar.Header{{Typeflag: tar.TypeDir, Name: "x/"}}, entries...) {
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		_ = Unpack(&b, dir, "x") // an error is as well as another place
		for _, evil := range []string{filepath.Join(outside, "evil"), filepath.Join(filepath.Dir(dir), "evil")} {
			if _, err := os.Lstat(evil); err == nil {
				t.Errorf("%s has made %s", name, evil)
			}
		}
	}
}
