package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/journalread"
	"github.com/shoalproject/shoal/services/agent/internal/logfile"
	"github.com/shoalproject/shoal/services/agent/internal/logger"
)

// ReadLog hands what a task has written to put, over all its attempts. NotFound: nothing is kept. Precondition: its driver
// can't be read here.
func (e *Executor) ReadLog(ctx context.Context, taskID string, req *logsv1.ReadLogRequest, live func(context.Context) bool, put func(*logsv1.ReadLogResponse) error) error {
	attempts, err := e.attempts(taskID)
	if err != nil {
		return err
	}
	if len(attempts) == 0 {
		if live(ctx) { // its container is not made yet: all that it will write is new
			return put(&logsv1.ReadLogResponse{Position: formatPosition(0, logfile.Position{})})
		}
		return errs.New(errs.NotFound, "nothing is kept of the task's output")
	}
	position := req.GetAfter()
	if strings.HasPrefix(position, journalPosition) {
		position = ""
	}
	attempt, after, err := parsePosition(position)
	if err != nil {
		return err
	}
	q := queryOf(req.GetOptions())
	q.Resume = req.GetAfter() != ""
	if req.GetAfter() == "" {
		attempt = attempts[0]
		if q.Tail >= 0 { // attempts are few and short: the last one's is what a person means
			attempt = attempts[len(attempts)-1]
		}
	}
	for i := 0; i < len(attempts); i++ {
		n := attempts[i]
		if n < attempt {
			continue
		}
		if n > attempt {
			after, q.Resume = logfile.Position{}, true // what came after the first that is read is wanted whole
		}
		q.After = after
		q.Wait = func(ctx context.Context) bool { return live(ctx) && e.newest(taskID) == n }
		id := container.ID(taskID, n)
		switch logger.ReadSettings(e.logFolder(id)).Driver {
		case logger.None:
			return errs.New(errs.Precondition, "its log driver is none: nothing is kept")
		case logger.Journal: // which has all attempts
			return e.readJournal(ctx, taskID, req, live, put)
		}
		err := logfile.Read(ctx, e.logFolder(id), q, func(b logfile.Batch) error { return put(responseOf(n, b)) })
		if err != nil {
			return err
		}
		if i == len(attempts)-1 && q.Follow { // another one may have begun
			if attempts, err = e.attempts(taskID); err != nil {
				return err
			}
		}
	}
	return nil
}

// readJournal reads what the driver journald has kept.
func (e *Executor) readJournal(ctx context.Context, taskID string, req *logsv1.ReadLogRequest, live func(context.Context) bool, put func(*logsv1.ReadLogResponse) error) error {
	program, err := journalread.Program()
	if err != nil {
		return errs.New(errs.Precondition, "its log driver is journald, and the agent finds no journalctl: read it on its node, with journalctl %s=%s", fieldTask, taskID)
	}
	options := req.GetOptions()
	after, own := strings.CutPrefix(req.GetAfter(), journalPosition)
	if !own {
		after = ""
		if req.GetAfter() != "" { // told before there was a container: all is new
			options = proto.CloneOf(options)
			options.Tail = nil
		}
	}
	return journalread.Read(ctx, program, journalread.Query{
		Field: fieldTask, Value: taskID, After: after, Options: options, Live: live,
	}, func(r *logsv1.ReadLogResponse) error {
		r.Position = journalPosition + r.GetPosition()
		return put(r)
	})
}

// journalPosition begins a position in the machine's journal.
const journalPosition = "journal/"

// attempts are those of a task of which something is kept, in order.
func (e *Executor) attempts(taskID string) ([]uint32, error) {
	entries, err := os.ReadDir(e.cfg.Logs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list logs: %w", err)
	}
	var list []uint32
	for _, entry := range entries {
		if id, n, ok := container.TaskOf(entry.Name()); ok && id == taskID && entry.IsDir() {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}

func (e *Executor) newest(taskID string) uint32 {
	list, err := e.attempts(taskID)
	if err != nil || len(list) == 0 {
		return 0
	}
	return list[len(list)-1]
}

func queryOf(o *logsv1.LogOptions) logfile.Query {
	q := logfile.Query{Tail: -1, Follow: o.GetFollow()}
	if o != nil && o.Tail != nil {
		q.Tail = int(min(o.GetTail(), 1<<24))
	}
	if t := o.GetSince(); t != nil {
		q.Since = t.AsTime()
	}
	if t := o.GetUntil(); t != nil {
		q.Until = t.AsTime()
	}
	if len(o.GetStreams()) == 1 {
		q.Only = logfile.Stdout
		if o.GetStreams()[0] == logsv1.LogStream_LOG_STREAM_STDERR {
			q.Only = logfile.Stderr
		}
	}
	return q
}

func responseOf(attempt uint32, b logfile.Batch) *logsv1.ReadLogResponse {
	r := &logsv1.ReadLogResponse{Lost: b.Lost, Position: formatPosition(attempt, b.End)}
	for _, l := range b.Lines {
		line := &logsv1.LogLine{At: timestamppb.New(l.At), Text: l.Text, Partial: l.Partial, Stream: logsv1.LogStream_LOG_STREAM_STDOUT}
		if l.Stream == logfile.Stderr {
			line.Stream = logsv1.LogStream_LOG_STREAM_STDERR
		}
		r.Lines = append(r.Lines, line)
	}
	return r
}

func formatPosition(attempt uint32, at logfile.Position) string {
	return fmt.Sprintf("%d/%d/%d", attempt, at.File, at.Offset)
}

func parsePosition(text string) (attempt uint32, at logfile.Position, err error) {
	if text == "" {
		return 0, at, nil
	}
	n, err := fmt.Sscanf(text, "%d/%d/%d", &attempt, &at.File, &at.Offset)
	if err != nil || n != 3 || at.Offset < 0 {
		return 0, at, errs.New(errs.Invalid, "%.100q is no position in a log", text)
	}
	return attempt, at, nil
}
