package journalread

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// journalctl writes a program that prints entries, and then ends, or, if it is to follow, waits. Its arguments go to a file.
func journalctl(t *testing.T, entries ...string) (program, args string) {
	t.Helper()
	dir := t.TempDir()
	program, args = filepath.Join(dir, "journalctl"), filepath.Join(dir, "args")
	script := fmt.Sprintf("#!/bin/sh\necho \"$@\" > %s\ncat <<'EOF'\n%s\nEOF\ncase \"$*\" in *--follow*) exec sleep 60;; esac\n", args, strings.Join(entries, "\n"))
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return program, args
}

func said(n int, message, more string) string {
	return fmt.Sprintf(`{"__CURSOR":"c%d","__REALTIME_TIMESTAMP":"%d","MESSAGE":%s,"SHOAL_TASK_ID":"t1"%s}`, n, 1_700_000_000_000_000+n*1000, message, more)
}

// What a task has written comes back with its times, streams, parts and bytes, and with a position to go on at.
func TestRead(t *testing.T) {
	program, args := journalctl(t,
		said(1, `"one"`, `,"PRIORITY":"6"`), said(2, `"bad"`, `,"PRIORITY":"3"`), "no entry of a journal",
		said(3, `[255,0,97]`, `,"PRIORITY":"6","CONTAINER_PARTIAL_MESSAGE":"true"`), said(4, `"late"`, `,"PRIORITY":"6"`),
	)
	until := time.UnixMicro(1_700_000_000_004_000)
	tail := uint32(9)
	var got []string
	position := ""
	err := Read(t.Context(), program, Query{
		Field: "SHOAL_TASK_ID", Value: "t1", Options: &logsv1.LogOptions{Tail: &tail, Until: timestamppb.New(until)},
	}, func(r *logsv1.ReadLogResponse) error {
		position = r.GetPosition()
		for _, l := range r.GetLines() {
			got = append(got, fmt.Sprintf("%d %v %q %v", l.GetAt().AsTime().UnixMicro()%1_000_000, l.GetStream(), l.GetText(), l.GetPartial()))
		}
		return nil
	})
	want := []string{`1000 LOG_STREAM_STDOUT "one" false`, `2000 LOG_STREAM_STDERR "bad" false`, `3000 LOG_STREAM_STDOUT "\xff\x00a" true`}
	if err != nil || !slices.Equal(got, want) || position != "c3" {
		t.Errorf("%q at %q, %v", got, position, err)
	}
	raw, err := os.ReadFile(args)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--lines=9", "--until=@1700000001", "SHOAL_TASK_ID=t1"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("journalctl was asked %q, without %s", raw, want)
		}
	}
}

// A follower goes on after its position, and ends with the task, though journalctl would wait for ever.
func TestFollow(t *testing.T) {
	program, args := journalctl(t, said(5, `"more"`, `,"PRIORITY":"6"`))
	live, lines := true, 0
	tail := uint32(1)
	err := Read(t.Context(), program, Query{
		Field: "SHOAL_TASK_ID", Value: "t1", After: "c4", Options: &logsv1.LogOptions{Follow: true, Tail: &tail},
		Live: func(context.Context) bool { return live },
	}, func(r *logsv1.ReadLogResponse) error {
		lines += len(r.GetLines())
		live = false
		return nil
	})
	if err != nil || lines != 1 {
		t.Errorf("%d lines, %v", lines, err)
	}
	raw, err := os.ReadFile(args)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), "--after-cursor=c4 --lines=all --follow") {
		t.Errorf("journalctl was asked %q", raw)
	}
}

// Long lines come in small parts, which a message of gRPC holds, and none is lost.
func TestLongLines(t *testing.T) {
	var entries []string
	for i := range 20 {
		entries = append(entries, said(i, `"`+strings.Repeat("x", 16<<10)+`"`, ""))
	}
	program, _ := journalctl(t, entries...)
	lines := 0
	err := Read(t.Context(), program, Query{Field: "SHOAL_TASK_ID", Value: "t1"}, func(r *logsv1.ReadLogResponse) error {
		lines += len(r.GetLines())
		if size := proto.Size(r); size > 96<<10 {
			t.Errorf("%d bytes at once", size)
		}
		return nil
	})
	if err != nil || lines != 20 {
		t.Errorf("%d lines, %v", lines, err)
	}
}
