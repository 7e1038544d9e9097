package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/run"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant

// write appends lines, each a second after the one before.
func write(t *testing.T, w *Writer, s Stream, lines ...string) {
	t.Helper()
	split := NewSplitter(s)
	for i, l := range lines {
		records, n := split.Split(nil, noon.Add(time.Duration(i)*time.Second), []byte(l+"\n"))
		if n != 1 {
			t.Fatalf("%q made %d lines", l, n)
		}
		if err := w.Append(records); err != nil {
			t.Fatal(err)
		}
	}
}

func create(t *testing.T, dir string, l Limits) *Writer {
	t.Helper()
	w, err := Create(dir, l)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// read is all that a query gives, as lines of "<stream> <text>".
func read(t *testing.T, dir string, q Query) (lines []string, last Batch) {
	t.Helper()
	err := Read(t.Context(), dir, q, func(b Batch) error {
		for _, l := range b.Lines {
			lines = append(lines, strings.Repeat("+", int(l.Stream))+string(l.Text))
		}
		b.Lost = b.Lost || last.Lost
		last = b
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines, last
}

func all() Query { return Query{Tail: -1} }

func number(from, to int) (lines []string) {
	for i := from; i < to; i++ {
		lines = append(lines, fmt.Sprintf("line %d %s", i, strings.Repeat("x", 40)))
	}
	return lines
}

func plus(lines []string) (out []string) {
	for _, l := range lines {
		out = append(out, "+"+l)
	}
	return out
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %d lines, want %d\n%.400q\n%.400q", what, len(got), len(want), got, want)
	}
}

// Lines come back as they were written, by stream, by time and from the end, over files of any form.
func TestReading(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir, Limits{FileSize: 1000, Files: 100})
	lines := number(0, 50)
	write(t, w, Stdout, lines...)
	write(t, w, Stderr, "a fault")
	for n := uint64(1); n < w.Number(); n += 2 {
		if err := Pack(dir, n); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.Number() < 4 {
		t.Fatalf("only %d files", w.Number())
	}
	everything := append(plus(lines), "++a fault")
	got, _ := read(t, dir, all())
	same(t, "all", got, everything)
	for n := 0; n <= 52; n++ {
		got, _ := read(t, dir, Query{Tail: n})
		same(t, fmt.Sprintf("the last %d", n), got, everything[max(0, 51-n):])
	}
	got, _ = read(t, dir, Query{Tail: -1, Only: Stderr})
	same(t, "standard error", got, []string{"++a fault"})
	got, _ = read(t, dir, Query{Tail: -1, Only: Stdout, Since: noon.Add(10 * time.Second), Until: noon.Add(20 * time.Second)})
	same(t, "ten seconds", got, plus(lines[10:20]))
	got, _ = read(t, dir, Query{Tail: 3, Only: Stdout, Until: noon.Add(20 * time.Second)})
	same(t, "the last three of a time", got, plus(lines[17:20]))
}

// Of the last lines there are as many as were asked for, also when more are written while they are read, into this file and the next.
func TestLastLinesOfWhatGrows(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir, Limits{FileSize: 200_000, Files: 10})
	write(t, w, Stdout, number(0, 2000)...)
	got, batches := 0, 0
	err := Read(t.Context(), dir, Query{Tail: 1900}, func(b Batch) error {
		if batches++; batches == 1 {
			write(t, w, Stdout, number(2000, 6000)...)
		}
		got += len(b.Lines)
		return nil
	})
	if err != nil || got != 1900 || batches < 2 {
		t.Errorf("%d lines in %d batches, %v; want 1900", got, batches, err)
	}
	if w.Number() < 2 {
		t.Error("there is one file")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// A reader that comes back goes on where it was, wherever it was; what has been let go of meanwhile it is told.
func TestPositions(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir, Limits{FileSize: 2000, Files: 3})
	lines := number(0, 60)
	write(t, w, Stdout, lines[:20]...)
	var ends []Position
	if err := Read(t.Context(), dir, all(), func(b Batch) error { ends = append(ends, b.End); return nil }); err != nil {
		t.Fatal(err)
	}
	write(t, w, Stdout, lines[20:30]...)
	got, last := read(t, dir, Query{After: ends[len(ends)-1], Resume: true, Tail: 1})
	same(t, "what is new", got, plus(lines[20:30]))
	if last.Lost {
		t.Error("something is said to be lost")
	}
	at := last.End
	write(t, w, Stdout, number(0, 200)...)
	if _, last = read(t, dir, Query{After: at, Resume: true}); !last.Lost {
		t.Error("what rotation let go of is not told")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// No more is kept than the limits say.
func TestRotationKeepsTheLimits(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir, Limits{FileSize: 4000, Files: 3})
	for range 20 {
		write(t, w, Stdout, number(0, 50)...)
		size := int64(0)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			size += info.Size()
		}
		if list, _ := numbers(dir); len(list) > 3 || size > 3*4000 {
			t.Fatalf("%d files, %d bytes", len(list), size)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// A follower sees every line of a writer that it races with, rotations, compression and a second writer, and ends with the last.
func TestFollowing(t *testing.T) {
	dir := t.TempDir()
	w := create(t, dir, Limits{FileSize: 3000, Files: 1000})
	lines := number(0, 600)
	done := run.Async(t.Context(), func(context.Context) (struct{}, error) {
		write(t, w, Stdout, lines[:300]...)
		if err := w.Close(); err != nil {
			return struct{}{}, err
		}
		w = create(t, dir, Limits{FileSize: 3000, Files: 1000})
		for i := 300; i < 600; i += 20 {
			write(t, w, Stdout, lines[i:i+20]...)
			if err := Pack(dir, uint64(i/20)); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, w.Close()
	})
	var got []string
	err := Read(t.Context(), dir, Query{Tail: -1, Follow: true, Wait: func(context.Context) bool { return len(got) < 600 }}, func(b Batch) error {
		for _, l := range b.Lines {
			got = append(got, "+"+string(l.Text))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.Err != nil {
		t.Fatal(r.Err)
	}
	same(t, "followed", got, plus(lines))
}

// A folder that goes while it is followed ends the following.
// A follower of the last lines is told where they begin, also when there are none yet: cut off and asked again it reads what
// was written meanwhile, and no line twice.
func TestFollowersGoOnWhereTheyBegan(t *testing.T) {
	for _, before := range []int{-1, 0, 5} { // -1: its logger has not begun
		dir, limits := t.TempDir(), Limits{FileSize: 3000, Files: 10}
		var w *Writer
		if before >= 0 {
			w = create(t, dir, limits)
			write(t, w, Stdout, number(0, before)...)
		}
		var at Position
		cut := errors.New("cut off")
		err := Read(t.Context(), dir, Query{Tail: 0, Follow: true}, func(b Batch) error {
			at = b.End
			return cut
		})
		if !errors.Is(err, cut) {
			t.Fatalf("it was not told where it begins: %v", err)
		}
		if w == nil {
			w = create(t, dir, limits)
		}
		write(t, w, Stdout, "meanwhile")
		got, _ := read(t, dir, Query{Tail: 0, After: at, Resume: true})
		same(t, fmt.Sprintf("after %d lines", before), got, []string{"+meanwhile"})
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFollowingWhatIsDeletedEnds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	w := create(t, dir, DefaultLimits())
	write(t, w, Stdout, "one")
	followed := run.Async(t.Context(), func(ctx context.Context) (int, error) {
		n := 0
		err := Read(ctx, dir, Query{Tail: -1, Follow: true, Wait: func(context.Context) bool { return true }}, func(b Batch) error {
			n += len(b.Lines)
			return os.RemoveAll(dir)
		})
		return n, err
	})
	if r := <-followed; r.Err != nil || r.Value != 1 {
		t.Errorf("%+v", r)
	}
	_ = w.Close() // its files are gone
}

// A line that is too long becomes parts, and one that never ended is still a line.
func TestSplitting(t *testing.T) {
	for name, c := range map[string]struct {
		chunks []string
		want   []string
	}{
		"pieces":          {[]string{"a", "b\nc", "\n", "d"}, []string{"F ab", "F c", "F d"}},
		"empty lines":     {[]string{"\n\n"}, []string{"F ", "F "}},
		"a long one":      {[]string{strings.Repeat("x", MaxText+1), "y\n"}, []string{"P " + strings.Repeat("x", MaxText), "F xy"}},
		"exactly as long": {[]string{strings.Repeat("x", MaxText), "\n"}, []string{"P " + strings.Repeat("x", MaxText), "F "}},
		"at once":         {[]string{strings.Repeat("x", MaxText) + "\n"}, []string{"F " + strings.Repeat("x", MaxText)}},
		"ends as long":    {[]string{strings.Repeat("x", MaxText)}, []string{"P " + strings.Repeat("x", MaxText), "F "}},
		"terminal":        {[]string{"a\r\n"}, []string{"F a\r"}},
	} {
		s := NewSplitter(Stdout)
		var records []byte
		for _, chunk := range c.chunks {
			records, _ = s.Split(records, noon, []byte(chunk))
		}
		records = s.End(records, noon)
		var got []string
		for l := range Records(records) {
			mark := "F "
			if l.Partial {
				mark = "P "
			}
			got = append(got, mark+string(l.Text))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %.100q", name, got)
		}
	}
}

// A power cut may leave any beginning of a file, and noise behind it. A reader shows lines as they were written and no
// others, and a writer that goes on loses none of its own.
func FuzzPowerCut(f *testing.F) {
	f.Add([]byte("one\ntwo\nthree\n"), uint16(50), []byte{0, 0, 0}, true)
	f.Add([]byte("one\n\n\nlong long long\n"), uint16(130), []byte("\n\n2026"), false)
	f.Add(bytes.Repeat([]byte("y"), MaxText+10), uint16(7), []byte{}, true)
	f.Fuzz(func(t *testing.T, said []byte, cut uint16, noise []byte, more bool) {
		split := NewSplitter(Stdout)
		records, _ := split.Split(nil, noon, said)
		records = split.End(records, noon)
		written := map[string]bool{}
		for l := range Records(records) {
			written[string(l.Text)] = true
		}
		for l := range bytes.Lines(noise) { // noise may look like a line
			if l, ok := parse(bytes.TrimSuffix(l, []byte{'\n'})); ok {
				written[string(l.Text)] = true
			}
		}
		dir := t.TempDir()
		left := slices.Concat(records[:int(cut)%(len(records)+1)], bytes.ReplaceAll(noise, []byte{'\n'}, []byte{0}))
		if err := os.WriteFile(nameOf(dir, 1, plain), left, 0o600); err != nil {
			t.Fatal(err)
		}
		check := func(want int) {
			n := 0
			err := Read(t.Context(), dir, all(), func(b Batch) error {
				for _, l := range b.Lines {
					if !written[string(l.Text)] {
						t.Errorf("line %.60q was never written", l.Text)
					}
					n++
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if whole := bytes.Count(left, []byte{'\n'}); n != whole+want {
				t.Errorf("%d lines, want %d and %d", n, whole, want)
			}
		}
		check(0)
		if more {
			w := create(t, dir, DefaultLimits())
			written["afterwards"] = true
			write(t, w, Stdout, "afterwards")
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			check(1)
		}
	})
}
