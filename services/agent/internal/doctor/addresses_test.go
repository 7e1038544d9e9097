package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/finding"
)

// A network namespace without a container is told, once it is too old to be one that is being made.
func TestLeakedAddressesAreTold(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "netns")
	has, now := map[string]bool{"a.0": true}, time.Now()
	if got := leaked(folder, has, now); got.Grade != finding.OK {
		t.Errorf("without the folder: %+v", got)
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a.0", "b.0"} {
		if err := os.WriteFile(filepath.Join(folder, id), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := leaked(folder, has, now); got.Grade != finding.OK {
		t.Errorf("while one is being made: %+v", got)
	}
	if got := leaked(folder, has, now.Add(2*time.Hour)); got.Grade != finding.Warning || !strings.Contains(got.What, "b.0") || strings.Contains(got.What, "a.0") || got.Fix == "" {
		t.Errorf("after two hours: %+v", got)
	}
}
