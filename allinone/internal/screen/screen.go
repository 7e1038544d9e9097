// Package screen tells a person, or a program that reads JSON, how shoal-dev is doing: what becomes ready, what it waits
// for, how to use the cluster, and that it ends.
//
// It owns the words on the terminal. With JSON everything is a log line, so that one stream has one format. A Screen is safe
// for concurrent use.
package screen

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// Formats of the log.
const (
	Text = "text"
	JSON = "json"
)

// Screen is where progress goes.
type Screen struct {
	log  *slog.Logger // nil: words
	out  io.Writer
	tell io.Writer

	mu sync.Mutex // guards writing
}

// New makes one. With the format JSON log gets everything; else out gets what was asked for, and tell the progress.
func New(format string, log *slog.Logger, out, tell io.Writer) *Screen {
	s := &Screen{out: out, tell: tell}
	if format == JSON {
		s.log = log
	}
	return s
}

// Logger makes the log of a format.
func Logger(format string, level slog.Level, to io.Writer) *slog.Logger {
	if format == JSON {
		return slog.New(slog.NewJSONHandler(to, &slog.HandlerOptions{Level: min(level, slog.LevelInfo)}))
	}
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: level, ReplaceAttr: short}))
}

// short leaves out the date: whoever reads a terminal knows it.
func short(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		a.Value = slog.StringValue(a.Value.Time().Format("15:04:05.000"))
	}
	return a
}

// Begin says what is started.
func (s *Screen) Begin(version, data string, fresh bool) {
	if s.log != nil {
		s.log.Info("starting", "version", version, "data", data, "new", fresh)
		return
	}
	what := "the cluster in"
	if fresh {
		what = "a new cluster in"
	}
	s.words("shoal-dev %s: %s %s\n", version, what, data)
}

// Part says that a process is ready.
func (s *Screen) Part(name string, after time.Duration) {
	if s.log != nil {
		s.log.Info("process ready", "process", name, "seconds", after.Seconds())
		return
	}
	s.words("  %-10s ready after %.1f s\n", name, after.Seconds())
}

// Ready is what the person needs to know when all is well.
type Ready struct {
	After time.Duration
	// Context is the name of the person's context, Gateway where it leads.
	Context, Gateway string
	// Join is the line for another machine; empty: none can reach this one.
	Join string
	// Kept says that containers outlive the end.
	Kept bool
}

// Ready says that the cluster can be used, and how.
func (s *Screen) Ready(r Ready) {
	if s.log != nil {
		s.log.Info("cluster ready", "seconds", r.After.Seconds(), "context", r.Context, "gateway", r.Gateway)
		return
	}
	end := "Ctrl-C stops the cluster and removes its containers; its services come back with the next start."
	if r.Kept {
		end = "Ctrl-C stops the cluster; its containers run on, and the next start takes them over."
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "Ready after %.1f s. The context %q is in use:\n\n    shoal service create --name web -p 8000 IMAGE\n\n", r.After.Seconds(), r.Context)
	if r.Join != "" {
		fmt.Fprintf(s.out, "To add a worker, run on another machine, as root:\n\n    %s\n\n", r.Join)
	}
	fmt.Fprintln(s.out, end)
}

// End says what is being done at the end.
func (s *Screen) End(what string) {
	if s.log != nil {
		s.log.Info("stopping", "doing", what)
		return
	}
	s.words("%s\n", what)
}

func (s *Screen) words(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.tell, format, args...)
}
