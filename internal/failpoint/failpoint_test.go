//go:build failpoint

package failpoint_test

import (
	"errors"
	"testing"

	"github.com/shoalproject/shoal/internal/failpoint"
)

// A point fails as its action says, and no longer when the action is taken away.
func TestPointRunsItsAction(t *testing.T) {
	broken := errors.New("broken")
	failpoint.Set("test.here", func() error { return broken })
	if err := failpoint.Hit("test.here"); !errors.Is(err, broken) {
		t.Fatalf("hit with an action: %v, want %v", err, broken)
	}
	failpoint.Set("test.here", nil)
	if err := failpoint.Hit("test.here"); err != nil {
		t.Fatalf("hit without an action: %v, want nil", err)
	}
}
