package tables_test

import (
	"os"
	"testing"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables/tablestest"
)

// TestProbe: a kernel on which all the other tests run is taken for able.
func TestProbe(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	if err := tables.Probe(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestKernelThatLacksTheMesh has the guard and the networks all the same.
func TestKernelThatLacksTheMesh(t *testing.T) {
	h := newHost(t)
	tablestest.Conformance(t, here{h, h.tables()}, mesh.Self{Node: tablestest.Self, Tunnel: addr("198.51.100.1"), MTU: 1500, UserSpace: true})
}
