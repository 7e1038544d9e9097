package inside

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// Lines are shown as Docker shows them: the task's name before, standard error apart, parts of a line put together.
func TestPrinter(t *testing.T) {
	place := &logsv1.Place{TaskId: "3k9x3k9x3k9x3k9x", Name: "web.1", Hostname: "w1", NodeId: "n1", Labels: map[string]string{"b": "2", "a": "1"}}
	line := func(s logsv1.LogStream, text string, partial bool) *logsv1.LogLine {
		return &logsv1.LogLine{At: timestamppb.New(time.Unix(0, 1)), Stream: s, Text: []byte(text), Partial: partial}
	}
	const out, bad = logsv1.LogStream_LOG_STREAM_STDOUT, logsv1.LogStream_LOG_STREAM_STDERR
	said := []*logsv1.LogsResponse{
		{Task: place, Lines: []*logsv1.LogLine{line(out, "one", false), line(out, "tw", true), line(bad, "oh", false)}},
		{Task: place, Lines: []*logsv1.LogLine{line(out, "o", false), line(out, "cut off", true)}},
		{Task: place, Missing: "node is down"},
	}
	for name, c := range map[string]struct {
		flags     logFlags
		out, errs string
	}{
		"plain": {
			logFlags{}, "web.1.3k9x3k9x3k9x@w1    | one\nweb.1.3k9x3k9x3k9x@w1    | two\ncut off\n",
			"web.1.3k9x3k9x3k9x@w1    | oh\nshoal: log of web.1 on w1 is missing: node is down\n",
		},
		"raw": {logFlags{raw: true}, "one\ntwo\ncut off\n", "oh\nshoal: log of web.1 on w1 is missing: node is down\n"},
		"all": {
			logFlags{timestamps: true, details: true, noTaskIDs: true, noResolve: true},
			"1970-01-01T00:00:00.000000001Z web.1@n1    | a=1,b=2 one\n1970-01-01T00:00:00.000000001Z web.1@n1    | a=1,b=2 two\ncut off\n",
			"1970-01-01T00:00:00.000000001Z web.1@n1    | a=1,b=2 oh\nshoal: log of web.1 on w1 is missing: node is down\n",
		},
	} {
		var stdout, stderr bytes.Buffer
		p := &printer{flags: c.flags, out: &stdout, err: &stderr, open: map[string][]byte{}}
		for _, r := range said {
			if err := p.show(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.flush(); err != nil {
			t.Fatal(err)
		}
		if stdout.String() != c.out || stderr.String() != c.errs {
			t.Errorf("%s:\n%q\n%q", name, stdout.String(), stderr.String())
		}
	}
}

// Times are what people write; all faults are told at once.
func TestLogOptions(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"42m": now.Add(-42 * time.Minute), "2026-11-29": now.Add(-12 * time.Hour), "2026-11-29T11:00:00Z": now.Add(-time.Hour),
		"1767360217": time.Unix(1767360217, 0),
	} {
		if got, ok := parseTime(text, now); !ok || !got.Equal(want) {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	f := logFlags{tail: "some", since: "yesterday", until: "never", stream: "both"}
	if _, err := f.options(now); err == nil || strings.Count(err.Error(), "\n") < 3 {
		t.Errorf("%v", err)
	}
}

// A word is a path in a task only if it can't be a file of this machine.
func TestCutTask(t *testing.T) {
	for arg, want := range map[string]string{
		"web.1:/etc": "web.1 /etc", "web.1:etc/": "web.1 /etc/", "web.1:": "web.1 /", "./a:b": "", "a/b:c": "", "file": "", ":x": "",
	} {
		got := ""
		if task, inside, ok := cutTask(arg); ok {
			got = task + " " + inside
		}
		if got != want {
			t.Errorf("%s: %q, want %q", arg, got, want)
		}
	}
}
