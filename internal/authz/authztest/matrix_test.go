package authztest_test

import (
	_ "embed"
	"testing"

	_ "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	_ "github.com/shoalproject/shoal/proto/shoal/control/v1"
	_ "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	_ "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	_ "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	_ "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
	_ "github.com/shoalproject/shoal/proto/shoal/store/v1"

	"github.com/shoalproject/shoal/internal/authz/authztest"
)

//go:embed rules.txt
var rules string

// TestMatrix is every RPC × every kind of caller. A new RPC needs its row in rules.txt, written by hand.
func TestMatrix(t *testing.T) {
	counts := authztest.Matrix(t, rules, authztest.Services()...)
	t.Logf("%d methods, %d calls", counts.Methods, counts.Calls)
}
