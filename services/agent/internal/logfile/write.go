package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"
)

// Limits bound what is kept of a container.
type Limits struct {
	// FileSize is the size at which a new file is begun. Unit: bytes.
	FileSize int64
	// Files is how many are kept, with the one that is written.
	Files int
}

// DefaultLimits are those of a container that names none.
func DefaultLimits() Limits { return Limits{FileSize: 10 << 20, Files: 5} }

// Writer writes one folder.
type Writer struct {
	dir    string
	limits Limits
	lock   *os.File
	file   *os.File // nil: could not be opened yet
	number uint64
	size   int64
}

// Create opens a folder for writing, after what is there. A line that an earlier writer could not end is taken off.
func Create(dir string, limits Limits) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := lock(dir)
	if err != nil {
		return nil, err
	}
	w := &Writer{dir: dir, limits: limits, lock: l, number: 1}
	list, err := numbers(dir)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if len(list) > 0 {
		w.number = list[len(list)-1]
	}
	if err := w.open(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return w, nil
}

// Close lets go of the folder.
func (w *Writer) Close() error {
	if w.file == nil {
		return w.lock.Close()
	}
	return errors.Join(w.file.Close(), w.lock.Close())
}

// Number is that of the file that is written.
func (w *Writer) Number() uint64 { return w.number }

func (w *Writer) open() error {
	if _, err := os.Stat(nameOf(w.dir, w.number, packed)); err == nil {
		w.number++ // it is compressed already, and whole
	}
	f, err := os.OpenFile(nameOf(w.dir, w.number, plain), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	size, err := mend(f)
	if err != nil {
		return errors.Join(fmt.Errorf("mend %s: %w", f.Name(), err), f.Close())
	}
	w.file, w.size = f, size
	return nil
}

// mend cuts a file behind its last whole line and goes there.
func mend(f *os.File) (int64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	for end := size; ; {
		begin := max(0, end-int64(len(buf)))
		part := buf[:end-begin]
		if _, err := f.ReadAt(part, begin); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		i := lastNewline(part)
		if i < 0 && begin > 0 {
			end = begin
			continue
		}
		whole := begin + int64(i) + 1
		if whole == size {
			return size, nil
		}
		if err := f.Truncate(whole); err != nil {
			return 0, err
		}
		return f.Seek(whole, io.SeekStart)
	}
}

// Append writes whole records, as Splitter makes them. An error means that nothing of them is kept; the next Append may
// go well again.
func (w *Writer) Append(records []byte) error {
	if w.file == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	if w.size > 0 && w.size+int64(len(records)) > w.limits.FileSize {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	n, err := w.file.Write(records)
	if err != nil { // a full disk: a part of a record must not stay, or what comes next would be the rest of its line
		return errors.Join(err, w.takeBack(int64(n)))
	}
	w.size += int64(n)
	return nil
}

func (w *Writer) takeBack(n int64) error {
	if n == 0 {
		return nil
	}
	if err := w.file.Truncate(w.size); err != nil {
		return err
	}
	_, err := w.file.Seek(w.size, io.SeekStart)
	return err
}

// rotate begins the next file and lets go of the oldest.
func (w *Writer) rotate() error {
	old := w.file
	w.file = nil
	w.number++
	// From the first that is one too many, down to one that has gone before.
	for n := int64(w.number) - int64(w.limits.Files); n > 0; n-- {
		a := os.Remove(nameOf(w.dir, uint64(n), plain))
		b := os.Remove(nameOf(w.dir, uint64(n), packed))
		if errors.Is(a, fs.ErrNotExist) && errors.Is(b, fs.ErrNotExist) {
			break
		}
	}
	return errors.Join(old.Close(), w.open())
}

// Splitter makes records of what one stream says.
type Splitter struct {
	stream Stream
	rest   []byte // of a line whose end has not come
	parted bool   // parts of that line are written
}

// NewSplitter makes one for a stream.
func NewSplitter(s Stream) *Splitter { return &Splitter{stream: s, rest: make([]byte, 0, MaxText)} }

// Split appends the records of what was read at a time to dst, and counts their lines. A line that has not ended is kept
// until it has, or is as long as a part.
func (s *Splitter) Split(dst []byte, at time.Time, data []byte) (records []byte, lines int) {
	var stampBuf [stampLen]byte
	stamp := at.UTC().AppendFormat(stampBuf[:0], stampForm)
	for len(data) > 0 {
		i := bytes.IndexByte(data, '\n')
		whole := i >= 0
		text := data
		if whole {
			text = data[:i]
		}
		if room := MaxText - len(s.rest); len(text) > room || len(text) == room && !whole {
			dst = head(dst, stamp, s.stream, true)
			dst = append(dst, s.rest...)
			dst = append(dst, text[:room]...)
			dst = append(dst, '\n')
			s.rest, s.parted, data = s.rest[:0], true, data[room:]
			continue
		}
		if !whole {
			s.rest = append(s.rest, text...)
			return dst, lines
		}
		dst = head(dst, stamp, s.stream, false)
		dst = append(dst, s.rest...)
		dst = append(dst, text...)
		dst = append(dst, '\n')
		s.rest, s.parted, data = s.rest[:0], false, data[i+1:]
		lines++
	}
	return dst, lines
}

// End appends what is left when the stream has ended.
func (s *Splitter) End(dst []byte, at time.Time) []byte {
	if len(s.rest) == 0 && !s.parted {
		return dst
	}
	dst, _ = s.Split(dst, at, []byte{'\n'})
	return dst
}

// Records are the lines of what a Splitter has made.
func Records(records []byte) iter.Seq[Line] {
	return func(yield func(Line) bool) {
		for raw := range bytes.Lines(records) {
			if l, ok := parse(bytes.TrimSuffix(raw, []byte{'\n'})); ok && !yield(l) {
				return
			}
		}
	}
}
