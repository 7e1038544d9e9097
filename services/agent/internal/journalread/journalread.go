// Package journalread reads what containers with the log driver journald have written back from the machine's journal.
//
// It owns the call of journalctl, which knows the journal's files in all their forms, and its bounds. It must never write to
// the journal. Read runs one journalctl beside its caller, and ends it with the caller.
package journalread

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

const (
	// batch is how many lines are handed on at once, at most.
	batch = 500
	// batchSize bounds what they have together: what they are handed to takes 4 MiB at once. Unit: bytes.
	batchSize = 64 << 10
	// maxEntry bounds one entry: a line of ours has at most 16 KiB, and as JSON each byte may take four characters and more.
	maxEntry = 1 << 20
	// look is how often a follower asks whether more may come, and hands on what there is.
	look = 200 * time.Millisecond
	// beforeNext is how long nothing must have come from a task that has ended.
	beforeNext = time.Second
)

// Program is what reads the journal. NotFound: this machine has none.
func Program() (string, error) {
	path, err := exec.LookPath("journalctl")
	if err != nil {
		return "", errs.New(errs.NotFound, "this machine has no journalctl")
	}
	return path, nil
}

// Query says which lines are wanted.
type Query struct {
	// Field and Value are of all entries that are wanted.
	Field, Value string
	// After is a position from before; empty: from the beginning. Then tail does not count.
	After   string
	Options *logsv1.LogOptions
	// Live says whether more may come.
	Live func(ctx context.Context) bool
}

// Read hands the lines to put, oldest first, whose error it returns.
func Read(ctx context.Context, program string, q Query, put func(*logsv1.ReadLogResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, q.args()...)
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return errs.New(errs.Unavailable, "read the machine's journal: %w", err)
	}
	entries := make(chan *entry, batch)
	read := run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		defer close(entries)
		return struct{}{}, scan(ctx, out, entries)
	})
	passed := pass(ctx, q, entries, put)
	cancel()
	scanned := <-read
	_ = cmd.Wait() // it was ended, or has ended by itself
	return errors.Join(passed, ignoreEnd(scanned.Err))
}

func ignoreEnd(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// args are journalctl(1)'s.
func (q Query) args() []string {
	args := []string{"--output=json", "--all", "--quiet", "--no-pager"}
	o := q.Options
	tail := "all"
	switch {
	case q.After != "":
		args = append(args, "--after-cursor="+q.After)
	case o != nil && o.Tail != nil:
		tail = strconv.FormatUint(uint64(o.GetTail()), 10)
	}
	args = append(args, "--lines="+tail)
	if o.GetFollow() {
		args = append(args, "--follow")
	}
	if t := o.GetSince(); t != nil {
		args = append(args, "--since=@"+strconv.FormatInt(t.AsTime().Unix(), 10))
	}
	if t := o.GetUntil(); t != nil {
		args = append(args, "--until=@"+strconv.FormatInt(t.AsTime().Unix()+1, 10))
	}
	args = append(args, q.Field+"="+q.Value)
	if len(o.GetStreams()) == 1 {
		args = append(args, "PRIORITY="+priority(o.GetStreams()[0]))
	}
	return args
}

// priority is what the logger gives a stream's lines.
func priority(s logsv1.LogStream) string {
	if s == logsv1.LogStream_LOG_STREAM_STDERR {
		return "3"
	}
	return "6"
}

// entry is one of the journal, in the form that systemd.io/JOURNAL_EXPORT_FORMATS calls JSON.
type entry struct {
	Cursor   string          `json:"__CURSOR"`
	Realtime string          `json:"__REALTIME_TIMESTAMP"`
	Message  json.RawMessage `json:"MESSAGE"`
	Priority string          `json:"PRIORITY"`
	Partial  string          `json:"CONTAINER_PARTIAL_MESSAGE"`
}

func scan(ctx context.Context, from io.Reader, to chan<- *entry) error {
	s := bufio.NewScanner(from)
	s.Buffer(make([]byte, 0, 64<<10), maxEntry)
	for s.Scan() {
		e := &entry{}
		if json.Unmarshal(s.Bytes(), e) != nil {
			continue // of another tool, which writes what is not ours
		}
		select {
		case to <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := s.Err(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read the machine's journal: %w", err)
	}
	return nil
}

// pass hands on what comes until there is no more, or nobody is there who could write.
func pass(ctx context.Context, q Query, from <-chan *entry, put func(*logsv1.ReadLogResponse) error) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	r, size := &logsv1.ReadLogResponse{}, 0
	flush := func() error {
		if len(r.GetLines()) == 0 {
			return nil
		}
		full := r
		r, size = &logsv1.ReadLogResponse{}, 0
		return put(full)
	}
	for quiet := time.Duration(0); ; {
		select {
		case e, more := <-from:
			if !more {
				return flush()
			}
			quiet = 0
			if l := e.line(); q.wants(l) {
				r.Lines, r.Position = append(r.Lines, l), e.Cursor
				size += len(l.GetText())
			}
			if len(r.GetLines()) >= batch || size >= batchSize {
				if err := flush(); err != nil {
					return err
				}
			}
		case <-tick.C:
			if err := flush(); err != nil {
				return err
			}
			if quiet += look; q.Options.GetFollow() && quiet >= beforeNext && !q.Live(ctx) {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wants compares times to the last digit, which journalctl's seconds do not.
func (q Query) wants(l *logsv1.LogLine) bool {
	since, until := q.Options.GetSince(), q.Options.GetUntil()
	at := l.GetAt().AsTime()
	return (since == nil || !at.Before(since.AsTime())) && (until == nil || at.Before(until.AsTime()))
}

func (e *entry) line() *logsv1.LogLine {
	micros, _ := strconv.ParseInt(e.Realtime, 10, 64) // journald writes numbers
	l := &logsv1.LogLine{At: timestamppb.New(time.UnixMicro(micros)), Stream: logsv1.LogStream_LOG_STREAM_STDOUT, Partial: e.Partial != ""}
	if e.Priority == priority(logsv1.LogStream_LOG_STREAM_STDERR) {
		l.Stream = logsv1.LogStream_LOG_STREAM_STDERR
	}
	var text string
	var raw []int
	switch { // what is no text is a list of its bytes
	case json.Unmarshal(e.Message, &text) == nil:
		l.Text = []byte(text)
	case json.Unmarshal(e.Message, &raw) == nil:
		for _, b := range raw {
			l.Text = append(l.Text, byte(b))
		}
	}
	return l
}
