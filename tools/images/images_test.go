package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// testOrder is for programs that are only names.
func testOrder(t *testing.T) order {
	t.Helper()
	dir := t.TempDir()
	o := order{
		binaries: filepath.Join(dir, "bin"), out: filepath.Join(dir, "dist/images"), licence: filepath.Join(dir, "LICENSE"), foreign: filepath.Join(dir, "third-party-licences.txt"),
		arches: []string{"amd64", "arm64"}, version: "v1.2.3", revision: "abc", date: time.Unix(1_700_000_000, 0).UTC(),
	}
	for file, text := range map[string]string{o.licence: "ours", o.foreign: "theirs"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, arch := range o.arches {
		if err := os.MkdirAll(filepath.Join(o.binaries, arch), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, r := range recipes() {
			for _, p := range r.programs {
				if err := os.WriteFile(filepath.Join(o.binaries, arch, p), []byte(arch+" "+p), 0o700); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return o
}

func read(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, n := range names {
		if files[filepath.Base(n)], err = os.ReadFile(n); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// Packed twice, the archives have the same bytes, and nothing else is left in the folder.
func TestTheSameBytesEachTime(t *testing.T) {
	o := testOrder(t)
	if err := o.pack(); err != nil {
		t.Fatal(err)
	}
	first := read(t, o.out)
	if len(first) != 2*len(recipes())+1 || first["shoal-images_v1.2.3.oci.tar"] == nil || first["shoal-ca_v1.2.3_arm64.tar"] == nil {
		t.Fatalf("%d files", len(first))
	}
	if err := os.WriteFile(filepath.Join(o.out, "shoal_v1.2.2_amd64.tar"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	for _, p := range []string{o.licence, o.foreign, filepath.Join(o.binaries, "amd64/shoal")} { // when files were written is no matter
		if err := os.Chtimes(p, later, later); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.pack(); err != nil {
		t.Fatal(err)
	}
	second := read(t, o.out)
	for n, data := range second {
		if !bytes.Equal(data, first[n]) {
			t.Errorf("%s is not the same", n)
		}
	}
	if len(second) != len(first) {
		t.Errorf("%d files, want %d: what was there before is replaced", len(second), len(first))
	}
}

// What an image promises stands in its config: who runs, what, and how it says that it is well.
func TestConfig(t *testing.T) {
	o := testOrder(t)
	if err := o.pack(); err != nil {
		t.Fatal(err)
	}
	for _, r := range recipes() {
		for _, arch := range o.arches {
			c, layers := open(t, o, r.name, arch)
			if c.Architecture != arch || c.OS != "linux" || !c.Created.Equal(o.date) {
				t.Errorf("%s: for %s/%s of %s", r.name, c.OS, c.Architecture, c.Created)
			}
			if got := c.Config.Labels["org.opencontainers.image.version"]; got != o.version {
				t.Errorf("%s: version %q", r.name, got)
			}
			node := slices.Contains([]string{"shoal", "shoal-agent", "shoal-meshproxy"}, r.name)
			if root := c.Config.User == "0:0"; root != node {
				t.Errorf("%s: user %s", r.name, c.Config.User)
			}
			if want := []string{"/usr/bin/" + r.name}; !slices.Equal(c.Config.Entrypoint, want) {
				t.Errorf("%s: runs %q", r.name, c.Config.Entrypoint)
			}
			if r.name != "shoal" && !slices.Equal(c.Config.Healthcheck.Test, []string{"CMD", "/usr/bin/" + r.name, "health"}) {
				t.Errorf("%s: health check %q", r.name, c.Config.Healthcheck.Test)
			}
			want := 1 + len(r.programs)
			if r.name == "shoal-agent" {
				want++ // the authorities
			}
			if layers != want {
				t.Errorf("%s: %d layers, want %d", r.name, layers, want)
			}
		}
	}
}

func open(t *testing.T, o order, image, arch string) (c *v1.ConfigFile, layers int) {
	t.Helper()
	tag, err := name.NewTag(image + ":" + o.version)
	if err != nil {
		t.Fatal(err)
	}
	i, err := tarball.ImageFromPath(filepath.Join(o.out, image+"_"+o.version+"_"+arch+".tar"), &tag)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = i.ConfigFile(); err != nil {
		t.Fatal(err)
	}
	list, err := i.Layers()
	if err != nil {
		t.Fatal(err)
	}
	return c, len(list)
}

// Every image has our terms and those of others, which are told with every copy, and no image is made without.
func TestLicences(t *testing.T) {
	o := testOrder(t)
	layers, err := o.layers("amd64")
	if err != nil {
		t.Fatal(err)
	}
	archive, err := layers[baseLayer].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		text, rerr := io.ReadAll(r)
		if err := errors.Join(err, rerr); err != nil {
			t.Fatal(err)
		}
		got[h.Name] = string(text)
	}
	if got["usr/share/doc/shoal/copyright"] != "ours" || got["usr/share/doc/shoal/third-party-licences.txt"] != "theirs" {
		t.Errorf("the base layer has %v", got)
	}
	if err := os.Remove(o.foreign); err != nil {
		t.Fatal(err)
	}
	if err := o.pack(); err == nil || !strings.Contains(err.Error(), "third-party-licences.txt") {
		t.Errorf("without the licences of others: %v", err)
	}
}

// A fault is told before anything is replaced.
func TestFaults(t *testing.T) {
	o := testOrder(t)
	if err := os.Remove(filepath.Join(o.binaries, "arm64/shoal-ca")); err != nil {
		t.Fatal(err)
	}
	if err := o.pack(); err == nil || !strings.Contains(err.Error(), "arm64/shoal-ca") {
		t.Errorf("a missing program: %v", err)
	}
	if left := read(t, o.out); len(left) > 0 {
		t.Errorf("%d files are left", len(left))
	}
	for args, want := range map[string]string{
		"-binaries x -foreign f -revision y -date 2026-01-02T03:04:05Z": "-version is missing",
		"-binaries x -revision y -version z -date 2026-01-02T03:04:05Z": "-foreign is missing",
		"-binaries x -foreign f -revision y -version z -date yesterday": "-date",
	} {
		if _, err := parse(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}
