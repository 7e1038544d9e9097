package userns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// A file that changes hands is as it was, for the namespace: set-user-id bits, capabilities, links, also when it is seen twice.
func TestChangeOwners(t *testing.T) {
	needsRoot(t)
	root := t.TempDir()
	program, second, link, far := filepath.Join(root, "program"), filepath.Join(root, "second"), filepath.Join(root, "link"), filepath.Join(root, "far")
	// Version 2, effective, CAP_NET_RAW (linux/capability.h).
	raw := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	for _, word := range []uint32{1 << 13, 0, 0, 0} {
		raw = binary.LittleEndian.AppendUint32(raw, word)
	}
	err := errors.Join(
		os.WriteFile(program, nil, 0o755), os.Chown(program, 7, 8), os.Chmod(program, 0o755|os.ModeSetuid), os.Link(program, second),
		os.Symlink("/etc/passwd", link), os.WriteFile(far, nil, 0o600), os.Chown(far, 70000, 0),
		unix.Setxattr(program, capability, raw, 0),
	)
	if err != nil {
		t.Fatal(err)
	}
	ids := container.IDs{First: first}
	if err := ChangeOwners(t.Context(), root, ids); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct{ uid, gid, mode uint32 }{
		program: {first + 7, first + 8, 0o4755}, second: {first + 7, first + 8, 0o4755}, link: {first, first, 0o777}, far: {70000, 0, 0o600}, root: {first, first, 0o755},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || st.Uid != want.uid || st.Gid != want.gid || st.Mode&0o7777 != want.mode {
			t.Errorf("%s: %d:%d %o, %v, want %d:%d %o", path, st.Uid, st.Gid, st.Mode&0o7777, err, want.uid, want.gid, want.mode)
		}
	}
	got := make([]byte, 64)
	n, err := unix.Getxattr(program, capability, got)
	want := binary.LittleEndian.AppendUint32(bytes.Clone(raw), first)
	want[3] = 3 // version 3
	if err != nil || !bytes.Equal(got[:n], want) {
		t.Errorf("capabilities: %x, %v, want %x", got[:n], err, want)
	}
}

// What is made belongs to the namespace's root, rights are kept, and afterwards all is as before.
func TestAs(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	made := func(name string) uint32 {
		var st unix.Stat_t
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), unix.Stat(path, &st)); err != nil {
			t.Fatal(err)
		}
		return st.Uid
	}
	err := As(container.IDs{First: first}, func() error {
		if uid := made("inside"); uid != first {
			t.Errorf("made by %d", uid)
		}
		return os.Chown(filepath.Join(dir, "inside"), first+5, first+5)
	})
	if err != nil {
		t.Fatal(err)
	}
	if uid := made("after"); uid != 0 {
		t.Errorf("afterwards made by %d", uid)
	}
}
