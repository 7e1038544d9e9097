package meshproxytest_test

import (
	"net/netip"
	"testing"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables/tablestest"
	"github.com/shoalproject/shoal/services/meshproxy/meshproxytest"
)

var _ tables.Tables = (*meshproxytest.Tables)(nil)

func TestConformance(t *testing.T) {
	tablestest.Conformance(t, meshproxytest.NewTables(),
		mesh.Self{Node: tablestest.Self, Tunnel: netip.MustParseAddr("198.51.100.1"), MTU: 1500})
}
