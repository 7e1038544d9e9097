package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/finding"
)

// TestIDsOfOthersAreTold: ids that a user, a group or somebody's own namespaces have are named with who has them.
func TestIDsOfOthersAreTold(t *testing.T) {
	const first, after = "2000027648", "2000158720" // of the two ranges, and after them
	for name, c := range map[string]struct{ file, text, owner string }{
		"a user":               {"passwd", "root:x:0:0::/:\nann:x:" + first + ":100::/:\n", "ann"},
		"a group":              {"group", "staff:x:" + first + ":ann\n", "staff"},
		"subordinate":          {"subuid", "ann:100000:65536\nbob:2000000000:65536\n", "bob"},
		"subordinate of group": {"subgid", "bob:2000000000:65536\n", "bob"},
		"beside them":          {"passwd", "ann:x:2000027647:1::/:\nbob:x:" + after + ":1::/:\n", ""},
		"below them":           {"subuid", "ann:1999962112:65536\n", ""},
		"no numbers":           {"subuid", "# ids\n\nann\nann:x:y\n", ""},
	} {
		etc := t.TempDir()
		if err := os.WriteFile(filepath.Join(etc, c.file), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := strings.Join(IDs{First: 2000027648, Ranges: 2}.owners(etc), ", ")
		if want := c.owner; want == "" && got != "" || want != "" && got != want+" ("+filepath.Join(etc, c.file)+")" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestUserNamespacesAreTold: what keeps containers from user namespaces of their own is told with its reason.
func TestUserNamespacesAreTold(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes a user namespace")
	}
	m := Machine{Volumes: "/proc/self", IDs: IDs{First: 2000027648, Ranges: 2}} // nobody can mount /proc with other owners
	if got := m.users(t.TempDir()); got.Grade != finding.Warning || !strings.Contains(got.What, "/proc/self can't be mounted with other owners") {
		t.Errorf("%+v", got)
	}
}
