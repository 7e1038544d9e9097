package system_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/agent/internal/system"
)

// TestDisk: a machine tells the size of the file system that holds the agent's data, as df has it; none when there is none.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if got := (system.Machine{Data: dir}).Describe().GetDiskBytes(); got != int64(st.Blocks)*st.Frsize || got <= 0 {
		t.Errorf("%d bytes", got)
	}
	if got := (system.Machine{Data: dir + "/none"}).Describe().GetDiskBytes(); got != 0 {
		t.Errorf("%d bytes of nothing", got)
	}
}
