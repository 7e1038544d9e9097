package system

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestRoomIsWhatDfSays: a disk of which much is kept back is not full for that.
func TestRoomIsWhatDfSays(t *testing.T) {
	use := room(unix.Statfs_t{Frsize: 4096, Blocks: 1000, Bfree: 800, Bavail: 300})
	if use.Percent() != 40 || use.Free != 300*4096 || use.Total != 500*4096 {
		t.Errorf("%d %% full, %d of %d free", use.Percent(), use.Free, use.Total)
	}
}
