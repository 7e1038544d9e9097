package logger

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/shoalproject/shoal/internal/beside"
	"github.com/shoalproject/shoal/services/agent/internal/logfile"
)

// packAfter is how long no file may have been begun before the older ones are compressed: a container that says so much that
// they are gone soon is not worth it.
const packAfter = 10 * time.Second

// files is the driver local.
type files struct {
	dir    string
	limits limits
	writer *logfile.Writer // nil: the folder could not be opened yet
	split  [logfile.Stderr + 1]*logfile.Splitter
	buf    []byte
	budget bucket
	lost   loss
	packed uint64 // every file before it was looked at
	number uint64 // of the file that was written last, and since when
	since  time.Time
	pack   <-chan beside.Result[struct{}] // under way; nil: none is
}

func newFiles(dir string, s Settings) *files {
	l, fault := s.parse()
	f := &files{dir: dir, limits: l, budget: newBucket(l.rate), packed: 1}
	for _, stream := range []logfile.Stream{logfile.Stdout, logfile.Stderr} {
		f.split[stream] = logfile.NewSplitter(stream)
	}
	if fault != nil {
		f.note(time.Now(), strings.ReplaceAll(fault.Error(), "\n", "; "))
	}
	_ = f.ready() // tried again with the first line
	return f
}

// Put implements Sink.
func (f *files) Put(at time.Time, s logfile.Stream, data []byte) {
	if !f.budget.take(at, int64(len(data))) {
		f.lost.add(data, "more than its max-rate")
		// What comes next is not the rest of this line.
		if f.buf = f.split[s].End(f.buf[:0], at); len(f.buf) > 0 {
			_ = f.write(f.buf) // a part of what is counted as lost
		}
		return
	}
	f.buf, _ = f.split[s].Split(f.buf[:0], at, data)
	f.append(at, data)
}

// End implements Sink.
func (f *files) End(at time.Time, s logfile.Stream) {
	f.buf = f.split[s].End(f.buf[:0], at)
	f.append(at, nil)
}

func (f *files) append(at time.Time, data []byte) {
	if f.lost.lines > 0 {
		f.note(at, f.lost.String())
	}
	if len(f.buf) == 0 {
		return
	}
	if err := f.write(f.buf); err != nil {
		f.lost.add(data, err.Error())
		return
	}
	f.tidy(at)
}

// note writes a line of our own. It is kept as lost itself until it can be written.
func (f *files) note(at time.Time, text string) {
	own := logfile.NewSplitter(logfile.Stderr)
	line, _ := own.Split(nil, at, []byte("shoal: "+text+"\n"))
	if f.write(line) == nil {
		f.lost = loss{}
	}
}

func (f *files) write(records []byte) error {
	if err := f.ready(); err != nil {
		return err
	}
	return f.writer.Append(records)
}

func (f *files) ready() (err error) {
	if f.writer == nil {
		f.writer, err = logfile.Create(f.dir, f.limits.Limits)
	}
	return err
}

// tidy compresses what is not written any more, one file at a time, beside the reading.
func (f *files) tidy(at time.Time) {
	if !f.limits.compress {
		return
	}
	if f.pack != nil {
		select {
		case <-f.pack: // a fault leaves the file as it was, which is no harm
			f.pack = nil
		default:
			return
		}
	}
	now := f.writer.Number()
	if now != f.number {
		f.number, f.since = now, at
	}
	if f.packed == now || at.Sub(f.since) < packAfter {
		return
	}
	// Files that rotation has let go of are no work.
	next := max(f.packed, now-min(now-1, uint64(f.limits.Files)))
	f.packed = next + 1
	f.pack = beside.Async(context.Background(), func(context.Context) (struct{}, error) {
		return struct{}{}, logfile.Pack(f.dir, next)
	})
}

// Close implements Sink.
func (f *files) Close() error {
	if f.lost.lines > 0 {
		f.note(time.Now(), f.lost.String())
	}
	if f.pack != nil {
		<-f.pack
	}
	if f.writer == nil {
		return nil
	}
	return f.writer.Close()
}

// loss counts what was left out since it was told last.
type loss struct {
	lines, bytes int64
	why          string
}

func (l *loss) add(data []byte, why string) {
	l.lines += int64(bytes.Count(data, []byte{'\n'}))
	l.bytes += int64(len(data))
	if l.lines == 0 {
		l.lines = 1
	}
	l.why = why
}

func (l *loss) String() string {
	return fmt.Sprintf("%d lines (%d bytes) of this container are not kept: %s", l.lines, l.bytes, l.why)
}

// bucket is a bound on bytes a second, with one second's worth at once.
type bucket struct {
	rate, left int64
	at         time.Time
}

func newBucket(rate int64) bucket { return bucket{rate: rate, left: rate} }

func (b *bucket) take(now time.Time, n int64) bool {
	if !b.at.IsZero() {
		if gone := now.Sub(b.at); gone > 0 {
			b.left = min(b.rate, b.left+int64(float64(b.rate)*min(gone.Seconds(), 1)))
		}
	}
	b.at = now
	if b.left < n {
		return false
	}
	b.left -= n
	return true
}
