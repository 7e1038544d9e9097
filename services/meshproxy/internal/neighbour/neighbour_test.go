package neighbour

import (
	"maps"
	"testing"

	"github.com/shoalproject/shoal/internal/testx"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// TestRaised: a table that is too small is made larger, once and again when somebody makes it small; one that is larger stays, and
// where the kernel has no such setting there is none.
func TestRaised(t *testing.T) {
	have := map[string]string{
		"net/ipv4/neigh/default/gc_thresh2": "512", "net/ipv4/neigh/default/gc_thresh3": "1024", "net/ipv6/neigh/default/gc_thresh3": "200000",
	}
	p, m := New(testx.Env(t)), &mesh.Model{}
	p.read = func(path string) (string, bool) { v, ok := have[path]; return v, ok }
	p.write = func(path, value string) error {
		if path == "net/ipv4/neigh/default/gc_thresh2" && have[Path("ipv4")] != "65536" {
			t.Error("the kernel is to forget neighbours from a bound on that is above the most")
		}
		have[path] = value
		return nil
	}
	want := map[string]string{
		"net/ipv4/neigh/default/gc_thresh2": "32768", "net/ipv4/neigh/default/gc_thresh3": "65536", "net/ipv6/neigh/default/gc_thresh3": "200000",
	}
	for range 2 {
		if err := p.Apply(t.Context(), m); err != nil || !maps.Equal(have, want) {
			t.Errorf("%v: the settings are %v", err, have)
		}
		have[Path("ipv4")] = "1024"
	}
}
