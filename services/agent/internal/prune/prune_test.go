package prune_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/disk"
	"github.com/shoalproject/shoal/services/agent/internal/prune"
)

// TestScripts: `images` says what there is, one a line: name, gigabytes, minutes since it was used, and whether it is used now;
// the answer is what goes.
func TestScripts(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			free, m := int64(0), prune.Marks{High: 85, Low: 75, Keep: 10 * time.Minute}
			d.ScanArgs(t, "free", &free)
			d.MaybeScanArgs(t, "high", &m.High)
			var all []prune.Image
			for line := range strings.Lines(d.Input) {
				var i prune.Image
				var size, minutes int64
				if _, err := fmt.Sscanf(line, "%s %d %d", &i.Name, &size, &minutes); err != nil {
					t.Fatal(err)
				}
				i.Bytes, i.Since, i.Used = size<<30, now.Add(-time.Duration(minutes)*time.Minute), strings.Contains(line, "used")
				all = append(all, i)
			}
			out := ""
			for _, i := range prune.Choose(all, disk.Use{Total: 100 << 30, Free: free << 30}, m, now) {
				out += "remove " + i.Name + "\n"
			}
			return out
		})
	})
}

// world is a runtime and tasks.
type world struct {
	disk    disk.Use
	fault   error
	images  []prune.Image
	removed []string
}

func (w *world) Disk(context.Context) (disk.Use, error) { return w.disk, w.fault }

func (w *world) Images(_ context.Context, named []string) ([]prune.Image, error) {
	out := slices.Clone(w.images)
	for i := range out {
		out[i].Used = slices.Contains(named, out[i].Name)
	}
	return out, nil
}

func (w *world) RemoveImage(_ context.Context, name string) error {
	w.removed = append(w.removed, name)
	return nil
}

type tasks struct{ named []string }

func (t tasks) Images(context.Context) ([]string, error) { return t.named, nil }

// TestLook: with room nobody is asked for images; without, those go that no task names.
func TestLook(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := &world{disk: disk.Use{Total: 100, Free: 50}, images: []prune.Image{{Name: "a", Bytes: 50}, {Name: "b", Bytes: 50}}}
	p := &prune.Pruner{
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }, Runtime: w, Tasks: tasks{[]string{"a"}},
		Marks: prune.Marks{High: 85, Low: 75, Keep: time.Minute},
	}
	for _, c := range []struct {
		free int64
		want []string
	}{{50, nil}, {5, []string{"b"}}} {
		w.disk.Free = c.free
		if err := p.Look(t.Context()); err != nil || !slices.Equal(w.removed, c.want) {
			t.Errorf("free %d: removed %v, %v, want %v", c.free, w.removed, err, c.want)
		}
	}
}

// TestDiskUnknown: a disk that can't be looked at is told, and is not taken for one with room; one that is not seen here is well.
func TestDiskUnknown(t *testing.T) {
	for _, c := range []struct{ fault, want error }{{syscall.EIO, syscall.EIO}, {errs.New(errs.NotFound, "not here"), nil}} {
		p := &prune.Pruner{Log: slog.New(slog.DiscardHandler), Now: time.Now, Runtime: &world{fault: c.fault}, Marks: prune.Marks{High: 85, Low: 75}}
		if err := p.Look(t.Context()); !errors.Is(err, c.want) {
			t.Errorf("%v: Look says %v, want %v", c.fault, err, c.want)
		}
	}
}
