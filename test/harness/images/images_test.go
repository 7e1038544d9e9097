package images

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// TestSameSourcesSameDigests: a digest in a log or a test means the same image on every machine.
func TestSameSourcesSameDigests(t *testing.T) {
	binaries := map[string]string{}
	for _, key := range []string{"1.0.0-amd64", "1.0.0-arm64", "1.1.0-amd64", "1.1.0-arm64"} {
		path := filepath.Join(t.TempDir(), key)
		if err := os.WriteFile(path, []byte("program "+key), 0o600); err != nil {
			t.Fatal(err)
		}
		binaries[key] = path
	}
	first, second := tags(t, binaries), tags(t, binaries)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
	if len(first) != 3 || first["1.0.0"] == first["1.1.0"] || first["1.0.0"] == first["crash"] {
		t.Errorf("the tags are %v", first)
	}
}

func tags(t *testing.T, binaries map[string]string) map[string]string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "layout")
	if err := assemble(path, binaries); err != nil {
		t.Fatal(err)
	}
	index, err := layout.ImageIndexFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, entry := range manifest.Manifests {
		found[entry.Annotations[refName]] = entry.Digest.String()
		image, err := index.ImageIndex(entry.Digest)
		if err != nil {
			t.Fatal(err)
		}
		platforms, err := image.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		if len(platforms.Manifests) != 2 || platforms.Manifests[1].Platform.Architecture != "arm64" {
			t.Errorf("%s is not for two platforms", entry.Annotations[refName])
		}
	}
	return found
}
