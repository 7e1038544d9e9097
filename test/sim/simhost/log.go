package simhost

import (
	"bytes"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// logLimit is how much of a host's log is kept; the oldest half is dropped when it is full.
const logLimit = 1 << 20

// log is a host's log. The zero value is ready.
type log struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

// Write takes whole lines, as slog gives them.
func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len()+len(p) > logLimit {
		l.buf.Next(logLimit / 2)
		if _, err := l.buf.ReadBytes('\n'); err != nil {
			l.buf.Reset()
		}
	}
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// note is the host's own line.
func (l *log) note(process, text string) {
	fmt.Fprintf(l, "time=%s host %s: %s\n", time.Now().Format("15:04:05.000"), process, text)
}

// logger is for one process.
func (l *log) logger(p *process) *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.String(slog.TimeKey, a.Value.Time().Format("15:04:05.000"))
			}
			return a
		},
	})).With("process", p.name)
}
