package probe_test

import (
	"os"
	"testing"

	"github.com/shoalproject/shoal/services/meshproxy/internal/probe"
)

// TestProbe: a kernel on which all the other tests run is taken for able.
func TestProbe(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	if err := probe.Mesh(t.Context()); err != nil {
		t.Errorf("published ports: %v", err)
	}
	if err := probe.Transparent(t.Context()); err != nil {
		t.Errorf("clients' addresses: %v", err)
	}
}
