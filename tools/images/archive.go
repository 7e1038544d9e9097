package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// load writes an archive for `docker load`, which knows one architecture.
func load(file, tag string, image v1.Image) error {
	ref, err := name.NewTag(tag)
	if err != nil {
		return err
	}
	if err := tarball.WriteToFile(file, ref, image); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

// archive collects the images of all architectures.
type archive struct {
	folder  string // of the layout that is archived, and removed then
	names   []string
	indexes map[string]v1.ImageIndex
}

func newArchive(folder string) *archive {
	return &archive{folder: folder, indexes: map[string]v1.ImageIndex{}}
}

func (a *archive) add(name, arch string, image v1.Image) {
	index, known := a.indexes[name]
	if !known {
		index = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		a.names = append(a.names, name)
	}
	a.indexes[name] = mutate.AppendManifests(index, mutate.IndexAddendum{
		Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
	})
}

// write makes one archive in the OCI image layout: an index an image, under the names that containerd and others read.
func (a *archive) write(file, version string, date time.Time) error {
	store, err := layout.Write(a.folder, empty.Index)
	if err != nil {
		return err
	}
	for _, image := range a.names {
		err := store.AppendIndex(a.indexes[image], layout.WithAnnotations(map[string]string{
			"org.opencontainers.image.ref.name": version,
			"io.containerd.image.name":          "docker.io/library/" + image + ":" + version,
		}))
		if err != nil {
			return fmt.Errorf("write image %s: %w", image, err)
		}
	}
	if err := pack(a.folder, file, date); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return os.RemoveAll(a.folder)
}

// pack archives a folder's files in the order of their names.
func pack(folder, file string, date time.Time) (err error) {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := tar.NewWriter(out)
	err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return packFile(w, folder, path, date)
	})
	if err != nil {
		return err
	}
	return w.Close()
}

func packFile(w *tar.Writer, folder, path string, date time.Time) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	relative, err := filepath.Rel(folder, path)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: filepath.ToSlash(relative), Mode: 0o644, Size: info.Size(), ModTime: date, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w, in)
	return err
}
