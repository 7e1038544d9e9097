package relay

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPairThatCannotBeWatchedIsClosed, though its first end is watched already and the loop may have been told of it.
func TestPairThatCannotBeWatchedIsClosed(t *testing.T) {
	l, err := newLoop(&stock{})
	if err != nil {
		t.Fatal(err)
	}
	watchable, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file, err := unix.Open(filepath.Join(t.TempDir(), "file"), unix.O_CREAT|unix.O_CLOEXEC|unix.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p := newPair(l, watchable, file)
	p.done = make(chan struct{})
	if err := l.carry(p); !errors.Is(err, unix.EPERM) {
		t.Errorf("a file can be watched, %v", err)
	}
	l.follow()
	select {
	case <-p.done:
	default:
		t.Error("it is still there")
	}
	if len(l.ends) != 0 {
		t.Errorf("%d ends are left", len(l.ends))
	}
	l.stop()
}
