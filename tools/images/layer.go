package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// Layers by name: "base", "roots" and one a program. Images share them, so that a machine with all processes has, and
// pulls, each program once.
const (
	baseLayer  = "base"
	rootsLayer = "roots"
)

// entry is one file or folder of a layer.
type entry struct {
	name string // without a leading slash; a folder's ends in one
	mode int64
	data []byte
}

func (o order) layers(arch string) (map[string]v1.Layer, error) {
	licence, err := os.ReadFile(o.licence)
	if err != nil {
		return nil, err
	}
	foreign, err := os.ReadFile(o.foreign)
	if err != nil {
		return nil, err
	}
	contents := map[string][]entry{baseLayer: base(licence, foreign), rootsLayer: roots()}
	for _, r := range recipes() {
		for _, name := range r.programs {
			data, err := os.ReadFile(filepath.Join(o.binaries, arch, name))
			if err != nil {
				return nil, err
			}
			contents[name] = []entry{{"usr/bin/" + name, 0o755, data}}
		}
	}
	layers := map[string]v1.Layer{}
	for name, list := range contents {
		if layers[name], err = layer(list, o.date); err != nil {
			return nil, fmt.Errorf("layer %s: %w", name, err)
		}
	}
	return layers, nil
}

// base is what a program expects on any machine: its users, where names are looked up, a place for temporary files.
func base(licence, foreign []byte) []entry {
	passwd := []string{"root:x:0:0:root:/root:/sbin/nologin", "nobody:x:65534:65534:nobody:/:/sbin/nologin"}
	group := []string{"root:x:0:", "nobody:x:65534:"}
	for _, p := range processes() {
		if p.user != 0 {
			passwd = append(passwd, fmt.Sprintf("shoal-%s:x:%d:%d:shoal %s:/var/lib/shoal/%s:/sbin/nologin", p.name, p.user, p.user, p.name, p.name))
			group = append(group, fmt.Sprintf("shoal-%s:x:%d:", p.name, p.user))
		}
	}
	return []entry{
		{"etc/", 0o755, nil},
		{"etc/group", 0o644, lines(group)},
		{"etc/nsswitch.conf", 0o644, []byte("hosts: files dns\n")},
		{"etc/passwd", 0o644, lines(passwd)},
		{"etc/shoal/", 0o755, nil},
		{"root/", 0o700, nil},
		{"run/", 0o755, nil},
		{"run/shoal/", 0o755, nil},
		{"tmp/", 0o1777, nil},
		{"usr/", 0o755, nil},
		{"usr/bin/", 0o755, nil},
		{"usr/share/doc/shoal/", 0o755, nil},
		{"usr/share/doc/shoal/copyright", 0o644, licence},
		{"usr/share/doc/shoal/third-party-licences.txt", 0o644, foreign},
		{"var/lib/shoal/", 0o755, nil},
	}
}

// roots are the authorities that browsers trust, in the one place where Go and others look.
func roots() []entry {
	var text bytes.Buffer
	for root := range bundle.Roots() {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes all
	}
	return []entry{
		{"etc/ssl/certs/", 0o755, nil},
		{"etc/ssl/certs/ca-certificates.crt", 0o644, text.Bytes()},
	}
}

func lines(list []string) []byte { return []byte(strings.Join(list, "\n") + "\n") }

// layer is an archive of the entries, root's, all of one time.
func layer(list []entry, date time.Time) (v1.Layer, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, e := range list {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.data)), ModTime: date, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}

// image puts layers and config together.
func (o order) image(r recipe, arch string, layers map[string]v1.Layer) (v1.Image, error) {
	names := append([]string{baseLayer}, r.programs...)
	if r.roots {
		names = append(names, rootsLayer)
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, name := range names {
		var err error
		image, err = mutate.Append(image, mutate.Addendum{
			Layer: layers[name], History: v1.History{Created: v1.Time{Time: o.date}, CreatedBy: "tools/images: " + name},
		})
		if err != nil {
			return nil, err
		}
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", arch, v1.Time{Time: o.date}
	file.Config = r.config(o)
	return mutate.ConfigFile(image, file)
}
