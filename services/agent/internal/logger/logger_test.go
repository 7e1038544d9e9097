package logger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/logfile"
)

func lines(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := logfile.Read(t.Context(), dir, logfile.Query{Tail: -1}, func(b logfile.Batch) error {
		for _, l := range b.Lines {
			list = append(list, strings.Repeat("+", int(l.Stream))+string(l.Text))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Both pipes are read to their ends, each as its own stream.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	kept := run.Async(t.Context(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, Keep(ctx, Pipes{Stdout: outR, Stderr: errR}, open(dir))
	})
	fmt.Fprint(outW, "one\ntwo")
	fmt.Fprint(errW, "bad\n")
	_, _ = outW.Close(), errW.Close()
	if r := <-kept; r.Err != nil {
		t.Fatal(r.Err)
	}
	got := strings.Join(lines(t, dir), ",")
	if !strings.Contains(got, "+one,") || !strings.Contains(got, "+two") || !strings.Contains(got, "++bad") {
		t.Error(got)
	}
	if logfile.Written(dir) {
		t.Error("the folder is still locked")
	}
}

// What is beyond the rate is left out and counted, and what comes later is kept again.
func TestRate(t *testing.T) {
	dir := t.TempDir()
	f := newFiles(dir, Settings{Options: map[string]string{"max-rate": "64k"}})
	now := time.Now()
	for range 20 {
		f.Put(now, logfile.Stdout, []byte(strings.Repeat("x", 8191)+"\n"))
	}
	f.Put(now.Add(2*time.Second), logfile.Stdout, []byte("later\n"))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got := lines(t, dir)
	want := "++shoal: 12 lines (98304 bytes) of this container are not kept: more than its max-rate"
	if len(got) != 10 || got[8] != want || got[9] != "+later" {
		t.Errorf("%d lines, the last: %.100q", len(got), got[len(got)-2:])
	}
}

// A disk that is full holds nobody up; when there is room again, what is missing is said.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("shoal-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 40<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFiles(filepath.Join(dir, "c"), Settings{})
	for i := range 40 {
		f.Put(time.Now(), logfile.Stdout, []byte(fmt.Sprintf("%d %s\n", i, strings.Repeat("x", 1000))))
	}
	if f.lost.lines == 0 {
		t.Fatal("nothing was lost: the disk was not full")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f.Put(time.Now(), logfile.Stdout, []byte("room\n"))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got := lines(t, filepath.Join(dir, "c"))
	if !strings.Contains(got[len(got)-2], "are not kept: write ") || got[len(got)-1] != "+room" {
		t.Errorf("%.200q", got[len(got)-2:])
	}
}

// Options are what the store admits; a fault is told whole.
func TestOptions(t *testing.T) {
	good := Settings{Options: map[string]string{"max-size": "64k", "max-file": "2", "compress": "false", "max-rate": "1m"}}
	l, err := good.parse()
	if err != nil || l.FileSize != 64<<10 || l.Files != 2 || l.compress || l.rate != 1<<20 {
		t.Errorf("%+v, %v", l, err)
	}
	bad := Settings{Options: map[string]string{"max-size": "1k", "max-file": "0", "compress": "maybe", "max-rate": "x", "other": ""}}
	if _, err := bad.parse(); err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("%v", err)
	}
}

// BenchmarkKeep is the way of one container's output, from its pipe to the disk.
func BenchmarkKeep(b *testing.B) {
	for _, size := range []int{40, 100, 1000} {
		b.Run(fmt.Sprintf("line=%d", size), func(b *testing.B) {
			line := append([]byte(strings.Repeat("x", size-1)), '\n')
			block := []byte(strings.Repeat(string(line), max(1, 32<<10/size)))
			b.SetBytes(int64(len(block)))
			dir := b.TempDir()
			r, w, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			s := Settings{Driver: Local, Options: map[string]string{"max-rate": "4g"}}
			kept := run.Async(b.Context(), func(ctx context.Context) (struct{}, error) {
				return struct{}{}, Keep(ctx, Pipes{Stdout: r}, newFiles(dir, s))
			})
			for b.Loop() {
				if _, err := w.Write(block); err != nil {
					b.Fatal(err)
				}
			}
			_ = w.Close()
			if r := <-kept; r.Err != nil {
				b.Fatal(r.Err)
			}
		})
	}
}

// TestSettingsWithoutADriver: what is said beside the driver stands, also when nobody has named one.
func TestSettingsWithoutADriver(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "t1.0")
	if err := (Settings{TTY: true, Options: map[string]string{"max-file": "2"}}).Write(dir); err != nil {
		t.Fatal(err)
	}
	if got := ReadSettings(dir); got.Driver != Local || !got.TTY || got.Options["max-file"] != "2" {
		t.Errorf("read back: %+v", got)
	}
}
