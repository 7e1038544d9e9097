package run

import (
	"context"
	"io/fs"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// folder is a Files that knows an identity, and keeps one file.
type folder struct {
	Files
	joined bool
	full   bool
	data   []byte
}

func (f *folder) Stat(string) (fs.FileInfo, error) {
	if !f.joined {
		return nil, fs.ErrNotExist
	}
	return nil, nil
}

func (f *folder) Read(string) ([]byte, error) {
	if f.data == nil {
		return nil, fs.ErrNotExist
	}
	return f.data, nil
}

func (f *folder) Write(_ string, data []byte, _ fs.FileMode) error {
	if f.full {
		return fs.ErrInvalid
	}
	f.data = data
	return nil
}

func (f *folder) Remove(string) error {
	f.data = nil
	return nil
}

func TestFailuresInARowWaitLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := &folder{joined: true}
		end := func(code int, lived time.Duration) time.Duration {
			begun := time.Now()
			env := Env{Log: slog.New(slog.DiscardHandler), Files: files}
			patience{env: env, file: "/var/lib/shoal/x"}.end(t.Context(), code, lived)
			return time.Since(begun)
		}
		var got []time.Duration
		for range 8 {
			got = append(got, end(exitFailed, time.Second))
		}
		got = append(got, end(exitFailed, time.Hour), end(exitFailed, time.Second), end(exitOK, time.Second), end(exitFailed, time.Second))
		const ms = time.Millisecond
		want := []time.Duration{
			200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, lastHold, lastHold,
			200 * ms, 400 * ms, // it had lived long
			0, 200 * ms, // it had ended well
		}
		if !slices.Equal(got, want) {
			t.Errorf("waits %s\nwanted %s", got, want)
		}
		files.full = true
		if got := end(exitFailed, time.Second); got != lastHold {
			t.Errorf("a disk that takes no count: %s", got)
		}
		files.joined, files.full, files.data = false, false, nil
		if got := end(exitFailed, time.Second); got != 0 || files.data != nil {
			t.Errorf("a machine that has not joined: waited %s and left %q", got, files.data)
		}
		files.joined = true
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begun := time.Now()
		patience{env: Env{Log: slog.New(slog.DiscardHandler), Files: files}, file: "/x"}.end(ctx, exitFailed, time.Second)
		if time.Since(begun) != 0 {
			t.Error("waited although it was told to stop")
		}
	})
}
