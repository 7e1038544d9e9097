package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// refName is where an OCI layout's index keeps a tag.
const refName = "org.opencontainers.image.ref.name"

// assemble writes all variants as an OCI image layout.
func assemble(path string, binaries map[string]string) error {
	store, err := layout.Write(path, empty.Index)
	if err != nil {
		return fmt.Errorf("write the images: %w", err)
	}
	for _, v := range variants() {
		index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		for _, arch := range architectures() {
			image, err := makeImage(v, arch, binaries[v.version+"-"+arch])
			if err != nil {
				return fmt.Errorf("make image %s:%s for %s: %w", Repository, v.tag, arch, err)
			}
			index = mutate.AppendManifests(index, mutate.IndexAddendum{
				Add:        image,
				Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
			})
		}
		if err := store.AppendIndex(index, layout.WithAnnotations(map[string]string{refName: v.tag})); err != nil {
			return fmt.Errorf("write image %s:%s: %w", Repository, v.tag, err)
		}
	}
	return nil
}

// makeImage is the program alone in an empty root, without any time of day in it.
func makeImage(v variant, arch, binary string) (v1.Image, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	header := &tar.Header{Name: "micro", Mode: 0o755, Size: int64(len(program)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
	if err := writer.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := writer.Write(program); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(mutate.ConfigMediaType(
		mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Config = v1.Config{
		Entrypoint: append([]string{"/micro"}, v.args...), WorkingDir: "/",
		Env:          []string{"PATH=/"},
		ExposedPorts: map[string]struct{}{"8000/tcp": {}, "8001/tcp": {}, "8002/udp": {}, "8003/tcp": {}, "8003/udp": {}},
	}
	return mutate.ConfigFile(image, config)
}
