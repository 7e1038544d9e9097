package logfile

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
)

// tail finds where the last lines begin, from the newest file back, and where the last of them ends: others may be written meanwhile.
func tail(dir string, q Query) (from, to Position, err error) {
	list, err := numbers(dir)
	if err != nil || len(list) == 0 {
		return from, to, err
	}
	to.File = list[len(list)-1]
	if q.Tail == 0 {
		to.Offset, err = endOf(dir, to.File)
		return to, to, err
	}
	need := q.Tail
	for i := len(list) - 1; i >= 0; i-- {
		begins, end, err := lastLines(dir, list[i], q, need)
		if errors.Is(err, fs.ErrNotExist) {
			break // let go of since the list was made, and all before it
		}
		if err != nil {
			return from, to, err
		}
		if list[i] == to.File {
			to.Offset = end
		}
		if len(begins) == need {
			return Position{File: list[i], Offset: begins[0]}, to, nil
		}
		need -= len(begins)
	}
	return from, to, nil
}

// lastLines are where the last lines of a file begin that are wanted, at most n of them, and where its last line ends.
func lastLines(dir string, number uint64, q Query, n int) (begins []int64, end int64, err error) {
	begins = make([]int64, 0, min(n, 1024))
	var parted [Stderr + 1]int64 // where the line begins whose parts came last, plus 1
	end, err = scan(dir, number, func(at int64, l Line) {
		begin := at
		if parted[l.Stream] > 0 {
			begin = parted[l.Stream] - 1
		}
		if l.Partial {
			parted[l.Stream] = begin + 1
			return
		}
		parted[l.Stream] = 0
		if !q.wants(l) {
			return
		}
		if len(begins) == n {
			begins = append(begins[:0], begins[1:]...)
		}
		begins = append(begins, begin)
	})
	return begins, end, err
}

// scan calls f for each whole line of a file with its offset, and returns where the last one ends.
func scan(dir string, number uint64, f func(at int64, l Line)) (end int64, err error) {
	file, err := open(dir, number)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	buf := bufio.NewReaderSize(file, batchSize)
	for at := int64(0); ; end = at {
		raw, err := buf.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) { // noise: no line is so long
			at += int64(len(raw))
			continue
		}
		if err != nil {
			return end, nil //nolint:nilerr // the end, or damage: what was read counts
		}
		if l, ok := parse(bytes.TrimSuffix(raw, []byte{'\n'})); ok {
			f(at, l)
		}
		at += int64(len(raw))
	}
}

// endOf is the length of a file, up to its last whole line.
func endOf(dir string, number uint64) (int64, error) {
	file, err := open(dir, number)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	buf := make([]byte, batchSize)
	var whole, at int64
	for {
		n, err := file.Read(buf)
		if i := lastNewline(buf[:n]); i >= 0 {
			whole = at + int64(i) + 1
		}
		at += int64(n)
		if errors.Is(err, io.EOF) {
			return whole, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
