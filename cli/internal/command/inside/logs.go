// Package inside is what people see of running containers, and do in them: logs, exec, cp, stats and top.
//
// It owns words and shapes alone: what may be asked is the cluster's to say. Its commands are tested with all others, by
// package command.
package inside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
)

// logFlags are Docker's, and what it lacks.
type logFlags struct {
	follow                  bool
	tail, since, until      string
	stream                  string
	timestamps, details     bool
	raw, noTaskIDs, noTrunc bool
	noResolve               bool
}

// Logs is `shoal logs`, `shoal service logs` and `shoal task logs`.
func Logs(a *app.App, use string, names app.Names) *cobra.Command {
	var f logFlags
	c := &cobra.Command{
		Use: use, Short: "Show what containers write", Args: app.AtLeastOne(),
		Long: "Show the output of the tasks of services, or of single tasks, from every machine. What containers write to standard\n" +
			"error goes to standard error. A machine that can't be asked is named there; the rest goes on.",
		Example: "  shoal service logs -f --tail 20 web\n  shoal task logs --since 10m -t web.3",
		RunE: func(c *cobra.Command, args []string) error {
			options, err := f.options(a.Env.Now())
			if err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				return showLogs(c.Context(), a, cl, &logsv1.LogsRequest{Targets: args, Options: options}, f)
			})
		},
	}
	s := c.Flags()
	s.BoolVarP(&f.follow, "follow", "f", false, "go on with what is written from now on")
	s.StringVarP(&f.tail, "tail", "n", "all", "show the last `lines` of each task")
	s.StringVar(&f.since, "since", "", "show lines from this `time` on: 2026-01-02T13:23:37Z, 2026-01-02, or 42m before now")
	s.StringVar(&f.until, "until", "", "show lines before this `time`")
	s.StringVar(&f.stream, "stream", "", "show only stdout or stderr")
	s.BoolVarP(&f.timestamps, "timestamps", "t", false, "show when each line was written")
	s.BoolVar(&f.details, "details", false, "show the labels of the service")
	s.BoolVar(&f.raw, "raw", false, "show lines as they are, without the task's name")
	s.BoolVar(&f.noTaskIDs, "no-task-ids", false, "leave out task ids")
	s.BoolVar(&f.noTrunc, "no-trunc", false, "do not shorten ids")
	s.BoolVar(&f.noResolve, "no-resolve", false, "show ids of machines instead of hostnames")
	app.Complete(c, "stream", app.Words("stdout", "stderr"))
	return app.Completed(c, names)
}

func (f *logFlags) options(now time.Time) (*logsv1.LogOptions, error) {
	var c errs.Collector
	o := &logsv1.LogOptions{Follow: f.follow}
	if n, err := strconv.ParseInt(f.tail, 10, 32); err == nil {
		if n >= 0 { // a negative one is all, as Docker has it
			lines := uint32(n)
			o.Tail = &lines
		}
	} else {
		c.Check(f.tail == "all", "tail", "%q is neither a number nor all", f.tail)
	}
	for _, t := range []struct {
		field, text string
		to          **timestamppb.Timestamp
	}{{"since", f.since, &o.Since}, {"until", f.until, &o.Until}} {
		if t.text == "" {
			continue
		}
		at, ok := parseTime(t.text, now)
		c.Check(ok, t.field, "%q is no time; write 2026-01-02T13:23:37Z, 2026-01-02, 1767360217, or 42m for 42 minutes ago", t.text)
		*t.to = timestamppb.New(at)
	}
	switch f.stream {
	case "":
	case "stdout":
		o.Streams = []logsv1.LogStream{logsv1.LogStream_LOG_STREAM_STDOUT}
	case "stderr":
		o.Streams = []logsv1.LogStream{logsv1.LogStream_LOG_STREAM_STDERR}
	default:
		c.Add("stream", "%q is neither stdout nor stderr", f.stream)
	}
	return o, c.Err("logs")
}

func parseTime(text string, now time.Time) (time.Time, bool) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), true
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		return time.Unix(0, int64(s*1e9)), true
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func showLogs(ctx context.Context, a *app.App, cl *client.Client, req *logsv1.LogsRequest, f logFlags) error {
	stream, err := cl.Logs.Logs(ctx, req)
	if err != nil {
		return app.Wrap(err, "logs")
	}
	p := &printer{flags: f, out: a.Out, err: a.Err, open: map[string][]byte{}}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) || err != nil && ctx.Err() != nil { // Ctrl-C ends the watching, and is no fault
			return p.flush()
		}
		if err != nil {
			return app.Wrap(errors.Join(err, p.flush()), "logs")
		}
		if err := p.show(r); err != nil {
			return err
		}
	}
}

// maxOpen bounds a line that is put together from parts. Unit: bytes.
const maxOpen = 1 << 20

// printer writes lines with the names of their tasks. Parts of a line wait for its end, or other tasks' lines would come in
// between.
type printer struct {
	flags    logFlags
	out, err io.Writer
	open     map[string][]byte // by task and stream
}

func (p *printer) show(r *logsv1.LogsResponse) error {
	if r.GetMissing() != "" {
		_, err := fmt.Fprintf(p.err, "shoal: log of %s%s is missing: %s\n", r.GetTask().GetName(), on(r.GetTask()), r.GetMissing())
		return err
	}
	for _, l := range r.GetLines() {
		key := r.GetTask().GetTaskId() + l.GetStream().String()
		text := l.GetText()
		if before := p.open[key]; before != nil || l.GetPartial() {
			text = append(before, text...)
		}
		if l.GetPartial() && len(text) < maxOpen {
			p.open[key] = text
			continue
		}
		delete(p.open, key)
		if err := p.line(r.GetTask(), l, text); err != nil {
			return err
		}
	}
	return nil
}

func on(t *logsv1.Place) string {
	if t.GetHostname() == "" {
		return ""
	}
	return " on " + t.GetHostname()
}

func (p *printer) line(t *logsv1.Place, l *logsv1.LogLine, text []byte) error {
	var b []byte
	if p.flags.timestamps {
		b = l.GetAt().AsTime().AppendFormat(b, "2006-01-02T15:04:05.000000000Z07:00 ")
	}
	if !p.flags.raw {
		b = append(b, p.prefix(t)...)
	}
	if p.flags.details {
		b = append(b, labels(t.GetLabels())...)
	}
	b = append(append(b, text...), '\n')
	to := p.out
	if l.GetStream() == logsv1.LogStream_LOG_STREAM_STDERR {
		to = p.err
	}
	_, err := to.Write(b)
	return err
}

// prefix is Docker's: web.1.3k9x…@node    | .
func (p *printer) prefix(t *logsv1.Place) string {
	name, node := t.GetName(), t.GetHostname()
	if !p.flags.noTaskIDs {
		id := t.GetTaskId()
		if !p.flags.noTrunc {
			id = id[:min(12, len(id))]
		}
		name += "." + id
	}
	if p.flags.noResolve || node == "" {
		node = t.GetNodeId()
	}
	return name + "@" + node + "    | "
}

// flush writes lines whose end has not come.
func (p *printer) flush() error {
	for key, text := range p.open {
		if _, err := fmt.Fprintf(p.out, "%s\n", text); err != nil {
			return err
		}
		delete(p.open, key)
	}
	return nil
}

func labels(m map[string]string) string {
	if len(m) == 0 {
		return ""
	}
	list := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, k+"="+m[k])
	}
	return strings.Join(list, ",") + " "
}
