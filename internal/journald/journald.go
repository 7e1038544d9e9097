// Package journald writes log records to systemd's journal, by its native protocol, with a field for each attribute.
//
// It owns the form of an entry, and loses none: what the journal does not take goes to another handler. It must never choose
// what is logged. A handler is safe for concurrent use.
package journald

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Socket takes entries, one datagram each (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).
	Socket = "/run/systemd/journal/socket"
	// longest bounds one field: a datagram has a bound, too, and only a stack comes near.
	longest = 48 << 10
)

// Leads says that the file is the one that the init system has tied to the journal: JOURNAL_STREAM has its device
// and inode (systemd.exec(5)). It is another one when somebody has redirected the output since.
func Leads(out *os.File, stream string) bool {
	if stream == "" {
		return false
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(out.Fd()), &st); err != nil {
		return false
	}
	return stream == strconv.FormatUint(st.Dev, 10)+":"+strconv.FormatUint(st.Ino, 10)
}

// handler writes records to systemd's journal. The constant message is the field SHOAL_EVENT, each attribute a
// field SHOAL_<NAME>, and MESSAGE is both for people: `journalctl -u shoal-agent SHOAL_TASK=abc` finds what is about a task.
type handler struct {
	out   *writer
	group string // before the names of attributes, with its _
	text  string // of the attributes so far, for MESSAGE
	field []byte // of the attributes so far
}

// writer is one socket, and where records go when it takes none.
type writer struct {
	path, program string
	otherwise     slog.Handler

	mu   sync.Mutex // guards conn
	conn net.Conn
}

// New writes to the socket at path, for a program of that name, all levels. What can't be written goes to otherwise.
func New(path, program string, otherwise slog.Handler) slog.Handler {
	return handler{out: &writer{path: path, program: program, otherwise: otherwise}}
}

// Enabled leaves the choice to those in front of it.
func (h handler) Enabled(context.Context, slog.Level) bool { return true }

// Handle writes one entry.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	h.field = slices.Clone(h.field)
	r.Attrs(func(a slog.Attr) bool {
		h.add(a)
		return true
	})
	var entry bytes.Buffer
	putField(&entry, "MESSAGE", r.Message+h.text)
	putField(&entry, "PRIORITY", priority(r.Level))
	putField(&entry, "SYSLOG_IDENTIFIER", h.out.program)
	putField(&entry, "SHOAL_EVENT", r.Message)
	entry.Write(h.field)
	if err := h.out.send(entry.Bytes()); err != nil {
		return h.fallBack(ctx, r, err)
	}
	return nil
}

// fallBack loses no record: standard error leads to the journal, too, line by line.
func (h handler) fallBack(ctx context.Context, r slog.Record, why error) error {
	r = slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.AddAttrs(slog.String("attributes", strings.TrimSpace(h.text)), slog.String("not_in_journal", why.Error()))
	return h.out.otherwise.Handle(ctx, r)
}

// WithAttrs adds them to every entry.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.field = slices.Clone(h.field)
	for _, a := range attrs {
		h.add(a)
	}
	return h
}

// WithGroup puts the name before those of the attributes to come.
func (h handler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.group += name + "_"
	}
	return h
}

func (h *handler) add(a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		inner := handler{group: h.group, text: h.text, field: h.field}
		if a.Key != "" {
			inner.group += a.Key + "_"
		}
		for _, g := range v.Group() {
			inner.add(g)
		}
		h.text, h.field = inner.text, inner.field
		return
	}
	if a.Key == "" {
		return
	}
	text := v.String()
	if v.Kind() == slog.KindTime {
		text = v.Time().UTC().Format(time.RFC3339Nano)
	}
	name := h.group + a.Key
	buf := bytes.NewBuffer(h.field)
	putField(buf, fieldName(name), text)
	h.field = buf.Bytes()
	if name == "process" { // it stands before every line already
		return
	}
	if strings.ContainsAny(text, " \"=\n") || text == "" {
		text = strconv.Quote(text)
	}
	h.text += " " + name + "=" + text
}

// putField is NAME=value, or for a value of several lines the name, the length and the value.
func putField(out *bytes.Buffer, name, value string) {
	if len(value) > longest {
		value = value[:longest]
	}
	out.WriteString(name)
	if strings.Contains(value, "\n") {
		var size [8]byte
		binary.LittleEndian.PutUint64(size[:], uint64(len(value)))
		out.WriteByte('\n')
		out.Write(size[:])
	} else {
		out.WriteByte('=')
	}
	out.WriteString(value)
	out.WriteByte('\n')
}

// fieldName is an attribute's field: capitals, digits and _, at most 64 of them.
func fieldName(key string) string {
	name := "SHOAL_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	return name[:min(len(name), 64)]
}

// priority is syslog's number.
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "3"
	case l >= slog.LevelWarn:
		return "4"
	case l >= slog.LevelInfo:
		return "6"
	}
	return "7"
}

func (w *writer) send(entry []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for try := 0; ; try++ {
		if w.conn == nil {
			conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: w.path, Net: "unixgram"})
			if err != nil {
				return fmt.Errorf("reach the journal: %w", err)
			}
			w.conn = conn
		}
		n, err := w.conn.Write(entry)
		if err == nil && n < len(entry) {
			err = io.ErrShortWrite
		}
		if err == nil || errors.Is(err, syscall.EMSGSIZE) {
			return err
		}
		_ = w.conn.Close() // the journal was started anew, and has another socket
		w.conn = nil
		if try == 1 {
			return err
		}
	}
}
