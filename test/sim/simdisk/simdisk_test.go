package simdisk_test

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	"github.com/shoalproject/shoal/test/sim/simdisk"
)

var _ run.Files = (*simdisk.Handle)(nil)

func write(t *testing.T, f run.Files, name, text string) {
	t.Helper()
	if err := f.Write(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestHandleKeepsTheContract(t *testing.T) {
	testx.FilesContract(t, simdisk.New(1).Open(), "/var/lib/shoal")
}

func TestDiskSurvivesTheCrashAndTheHandleDoesNot(t *testing.T) {
	d := simdisk.New(1)
	h := d.Open()
	write(t, h, "/var/lib/shoal/id", "m1")
	write(t, h, "/var/lib/shoal/tls/key", "k")
	h.Kill()
	if err := h.Write("/var/lib/shoal/id", []byte("m2"), 0o600); !errors.Is(err, simdisk.ErrDead) {
		t.Errorf("write by the dead: %v", err)
	}
	if _, err := h.Read("/var/lib/shoal/id"); !errors.Is(err, simdisk.ErrDead) {
		t.Errorf("read by the dead: %v", err)
	}
	next := d.Open()
	if got, err := next.Read("/var/lib/shoal/id"); err != nil || string(got) != "m1" {
		t.Errorf("read %q, %v", got, err)
	}
	names, err := next.List("/var/lib/shoal")
	if diff := cmp.Diff([]string{"id", "tls"}, names); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if names, err := next.List("/nowhere"); names != nil || err != nil {
		t.Errorf("list of nothing: %q, %v", names, err)
	}
	if err := next.Remove("/var/lib/shoal/id"); err != nil {
		t.Error(err)
	}
	if _, err := next.Stat("/var/lib/shoal/id"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat of what was removed: %v", err)
	}
}

func TestFullAndFailingDisk(t *testing.T) {
	d := simdisk.New(1)
	h := d.Open()
	write(t, h, "a", "old")
	d.Full(true)
	if err := h.Write("a", []byte("new"), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write to a full disk: %v", err)
	}
	if got, err := h.Read("a"); string(got) != "old" || err != nil {
		t.Errorf("read from a full disk: %q, %v", got, err)
	}
	d.Full(false)
	d.Fail(syscall.EIO)
	if _, err := h.Read("a"); !errors.Is(err, syscall.EIO) {
		t.Errorf("read from a broken disk: %v", err)
	}
	d.Fail(nil)
	write(t, h, "a", "new")
	if s := d.Stats(); s.Failed != 2 || s.Writes != 2 {
		t.Errorf("stats %+v", s)
	}
}

func TestSlowWriteInACrashIsOldOrNewAndNeverLater(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			d := simdisk.New(seed)
			h := d.Open()
			write(t, h, "a", "old")
			d.Slow(time.Second)
			done := make(chan error)
			go func() { done <- h.Write("a", []byte("new"), 0o600) }()
			time.Sleep(500 * time.Millisecond)
			h.Kill()
			d.Slow(0)
			got, _ := d.Open().Read("a")
			outcomes[string(got)]++
			write(t, d.Open(), "a", "after the restart")
			if err := <-done; !errors.Is(err, simdisk.ErrDead) {
				t.Errorf("the write was told done: %v", err)
			}
			if got, _ := d.Open().Read("a"); string(got) != "after the restart" {
				t.Errorf("a dead process has written %q", got)
			}
		})
	}
	if outcomes["old"] == 0 || outcomes["new"] == 0 || len(outcomes) != 2 {
		t.Errorf("outcomes %v", outcomes)
	}
}
