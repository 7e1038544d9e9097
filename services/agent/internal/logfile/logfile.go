// Package logfile is how the output of a container is kept on a machine: a folder with numbered files of lines.
//
// It owns their form, their rotation and their reading. It must never wait for a reader: one process writes a folder (the
// container's logger), any number read it at the same time, and they meet in the file system alone. What is written is not
// synced: a power cut may take the last seconds, but a reader shows no line that is not whole.
//
// A line is in the form of Kubernetes' container runtime interface, so that shippers that know it can read the files:
//
//	2026-11-29T16:54:20.123456789Z stdout F the text
//
// P in the place of F is a part of a line that goes on. The files are 00000001.log, 00000002.log and so on; the highest is
// being written, an older one may be compressed (.log.gz), and the oldest go. "lock" is locked while there is a writer.
//
// A Writer is for one goroutine; reading is safe for concurrent use.
package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// stampForm has always the same length, and sorts as time does.
	stampForm = "2006-01-02T15:04:05.000000000Z"
	stampLen  = len(stampForm)
	// headLen is what stands before the text: stamp, stream, mark.
	headLen = stampLen + len(" stdout F ")
	// MaxText is the longest text of a line; what is longer becomes parts.
	MaxText = 16 << 10

	plain, packed = ".log", ".log.gz"
	lockName      = "lock"
)

// Stream is where a line was written to.
type Stream uint8

// The streams.
const (
	Stdout Stream = iota + 1
	Stderr
)

// Line is one line, or a part of one.
type Line struct {
	At      time.Time
	Stream  Stream
	Text    []byte // valid until the next line is read
	Partial bool
}

// head appends what stands before a text. Stamp is a time in stampForm.
func head(dst, stamp []byte, s Stream, partial bool) []byte {
	dst = append(dst, stamp...)
	if s == Stdout {
		dst = append(dst, " stdout "...)
	} else {
		dst = append(dst, " stderr "...)
	}
	if partial {
		return append(dst, "P "...)
	}
	return append(dst, "F "...)
}

// parse reads a line without its end; ok is false for anything else, as a power cut may leave it.
func parse(raw []byte) (l Line, ok bool) {
	if len(raw) < headLen || len(raw) > headLen+MaxText {
		return l, false
	}
	at, err := time.Parse(stampForm, string(raw[:stampLen]))
	if err != nil {
		return l, false
	}
	l.At, l.Text = at, raw[headLen:]
	switch string(raw[stampLen : headLen-2]) {
	case " stdout ":
		l.Stream = Stdout
	case " stderr ":
		l.Stream = Stderr
	default:
		return l, false
	}
	switch string(raw[headLen-2 : headLen]) {
	case "F ":
	case "P ":
		l.Partial = true
	default:
		return l, false
	}
	return l, true
}

// numbers lists the files of a folder, in order. One that is there in both forms counts once.
func numbers(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []uint64
	for _, e := range entries {
		name, _, ok := strings.Cut(e.Name(), ".")
		if !ok || e.Name() != name+plain && e.Name() != name+packed {
			continue
		}
		if n, err := strconv.ParseUint(name, 10, 64); err == nil {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

func nameOf(dir string, number uint64, form string) string {
	return filepath.Join(dir, fmt.Sprintf("%08d%s", number, form))
}

// lock takes the folder for its one writer. The lock ends with the file, and so with the process.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	// A reader that looks whether there is a writer holds it for a moment.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// Written reports whether a folder has a writer now.
func Written(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

func lastNewline(b []byte) int { return bytes.LastIndexByte(b, '\n') }
