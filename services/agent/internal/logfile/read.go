package logfile

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/shoalproject/shoal/internal/beside"
)

const (
	// A follower that has read all looks again: soon at first, then less often.
	lookFirst, lookLast = 20 * time.Millisecond, 320 * time.Millisecond
	// Lines are handed on in batches of at most this size. Unit: bytes.
	batchSize = 64 << 10
)

// Position is a place in a folder.
type Position struct {
	File   uint64
	Offset int64 // in the file as it was written
}

// Query says which lines are wanted.
type Query struct {
	// After goes on there. Resume says that it counts, also when it is the beginning; then Tail does not.
	After  Position
	Resume bool
	// Tail is how many of the last lines; negative: all.
	Tail int
	// Since and Until bound the times; zero: they do not.
	Since, Until time.Time
	// Only is one stream; 0: both.
	Only Stream
	// Follow first tells where it begins, in a batch without lines, so that whoever is cut off goes on there. It goes on while there is a writer, or, when there is none, while Wait says that another one will come.
	Follow bool
	// Wait says whether one will.
	Wait func(ctx context.Context) bool
}

// Batch is some lines.
type Batch struct {
	Lines []Line
	// End is where the last of them ends.
	End Position
	// Lost says that lines before these were let go of before they could be read.
	Lost bool
}

// Read hands the lines of a folder to put, oldest first, whose error it returns. A folder that has gone has no more lines.
func Read(ctx context.Context, dir string, q Query, put func(Batch) error) error {
	r := &reader{dir: dir, query: q, put: put, at: q.After}
	defer r.close()
	if !q.Resume && q.Tail >= 0 {
		from, to, err := tail(dir, q)
		if err != nil {
			return ignoreGone(err)
		}
		r.at = from
		if q.Follow {
			if err := put(Batch{End: from}); err != nil {
				return err
			}
		} else {
			r.end = &to // or there would be more than were asked for
		}
	}
	return ignoreGone(r.run(ctx))
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// reader goes through the files.
type reader struct {
	dir   string
	query Query
	put   func(Batch) error
	at    Position
	end   *Position // nothing from there on is wanted; nil: all is
	lost  bool

	file   io.ReadCloser
	buf    *bufio.Reader
	broken []byte // of a line whose end was not there yet
	batch  Batch
	size   int
}

func (r *reader) close() {
	if r.file != nil {
		_ = r.file.Close() // it was only read
		r.file = nil
	}
}

func (r *reader) run(ctx context.Context) error {
	look := lookFirst
	for {
		// Whether there is a writer is asked before the last look: what it wrote before it went must be seen.
		written := Written(r.dir)
		some, err := r.drain(ctx)
		if err != nil {
			return err
		}
		if some {
			look = lookFirst
		}
		if !r.query.Follow {
			return nil
		}
		if !written && !some && (r.query.Wait == nil || !r.query.Wait(ctx)) {
			return nil
		}
		if err := beside.Sleep(ctx, look); err != nil {
			return err
		}
		look = min(2*look, lookLast)
	}
}

// drain reads all that is there now.
func (r *reader) drain(ctx context.Context) (some bool, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return some, err
		}
		if r.file == nil {
			more, err := r.next()
			if err != nil || !more {
				return some, err
			}
		}
		older, err := r.outlived()
		if err != nil {
			return some, err
		}
		n, err := r.lines(ctx)
		some = some || n > 0
		if err != nil {
			return some, err
		}
		if !older {
			return some, r.flush()
		}
		r.close()
		r.at = Position{File: r.at.File + 1}
	}
}

// outlived says that the open file is not the one that is written. It is asked before its end is looked for.
func (r *reader) outlived() (bool, error) {
	list, err := numbers(r.dir)
	if err != nil {
		return false, err
	}
	return len(list) > 0 && list[len(list)-1] > r.at.File, nil
}

// next opens the file of the position, or the first after it.
func (r *reader) next() (bool, error) {
	list, err := numbers(r.dir)
	if err != nil {
		return false, err
	}
	for _, n := range list {
		if n < r.at.File {
			continue
		}
		if n > r.at.File {
			r.lost = r.lost || r.at.File != 0
			r.at = Position{File: n}
		}
		f, err := open(r.dir, n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // let go of since the list was made
		}
		if err != nil {
			return false, err
		}
		r.file, r.buf, r.broken = f, bufio.NewReaderSize(f, batchSize), nil
		if _, err := io.CopyN(io.Discard, r.buf, r.at.Offset); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		return true, nil
	}
	return false, nil
}

// lines reads to the end of the open file. A last line without its end is kept for the next time.
func (r *reader) lines(ctx context.Context) (n int, err error) {
	for !r.past() {
		part, err := r.buf.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) || errors.Is(err, io.EOF) && len(part) > 0 {
			// Never longer than a line can be; noise that a power cut has left is.
			r.broken = append(r.broken, part...)
			if len(r.broken) > headLen+MaxText {
				r.broken = append(r.broken[:0], 0) // no line begins so
			}
			r.at.Offset += int64(len(part))
			if err == bufio.ErrBufferFull { //nolint:errorlint // as bufio documents it
				continue
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		r.at.Offset += int64(len(part))
		text := part[:len(part)-1]
		if len(r.broken) > 0 {
			text = append(r.broken, text...)
			r.broken = nil
		}
		n++
		if l, ok := parse(text); ok && r.query.wants(l) {
			if err := r.add(l); err != nil {
				return n, err
			}
			if err := ctx.Err(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// past says that all has been read that is wanted.
func (r *reader) past() bool {
	return r.end != nil && (r.at.File > r.end.File || r.at.File == r.end.File && r.at.Offset >= r.end.Offset)
}

func (q Query) wants(l Line) bool {
	return (q.Only == 0 || l.Stream == q.Only) && !l.At.Before(q.Since) && (q.Until.IsZero() || l.At.Before(q.Until))
}

func (r *reader) add(l Line) error {
	l.Text = append([]byte(nil), l.Text...)
	r.batch.Lines = append(r.batch.Lines, l)
	r.batch.End = r.at
	if r.size += headLen + len(l.Text); r.size < batchSize {
		return nil
	}
	return r.flush()
}

func (r *reader) flush() error {
	if len(r.batch.Lines) == 0 {
		return nil
	}
	b := r.batch
	b.Lost = r.lost
	r.batch, r.size, r.lost = Batch{}, 0, false
	return r.put(b)
}

// open opens a file in either form.
func open(dir string, number uint64) (io.ReadCloser, error) {
	f, err := os.Open(nameOf(dir, number, plain))
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	f, err = os.Open(nameOf(dir, number, packed))
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return unpacker{z, f}, nil
}

type unpacker struct {
	*gzip.Reader
	file *os.File
}

func (u unpacker) Close() error { return errors.Join(u.Reader.Close(), u.file.Close()) }
