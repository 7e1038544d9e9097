package journald

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// journal is a socket that takes entries as journald does.
func journal(t *testing.T, path string) (end func() error, next func() map[string]string) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.Close, func() map[string]string {
		t.Helper()
		buf := make([]byte, 1<<20)
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return entry(t, buf[:n])
	}
}

// entry reads the protocol: NAME=value, or NAME, a length in 8 bytes and the value.
func entry(t *testing.T, data []byte) map[string]string {
	t.Helper()
	fields := map[string]string{}
	for len(data) > 0 {
		line, rest, found := bytes.Cut(data, []byte("\n"))
		if !found {
			t.Fatalf("no end of line: %q", data)
		}
		name, value, short := strings.Cut(string(line), "=")
		if !short {
			size := binary.LittleEndian.Uint64(rest)
			value, rest = string(rest[8:8+size]), rest[8+size+1:]
		}
		fields[name], data = value, rest
	}
	return fields
}

func TestJournalGetsFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	_, next := journal(t, path)
	var otherwise bytes.Buffer
	log := slog.New(New(path, "shoal-agent", slog.NewJSONHandler(&otherwise, nil))).With("process", "agent")
	log.With("task", "abc").Warn("container ended", "exit_code", 137, "why", errors.New("out of memory"), "at", time.Unix(0, 0),
		slog.Group("image", "name", "web:1"), "stack", "a\nb\n", "empty", "")
	want := map[string]string{
		"MESSAGE":           `container ended task=abc exit_code=137 why="out of memory" at=1970-01-01T00:00:00Z image_name=web:1 stack="a\nb\n" empty=""`,
		"SHOAL_EVENT":       "container ended",
		"PRIORITY":          "4",
		"SYSLOG_IDENTIFIER": "shoal-agent",
		"SHOAL_PROCESS":     "agent",
		"SHOAL_TASK":        "abc",
		"SHOAL_EXIT_CODE":   "137",
		"SHOAL_WHY":         "out of memory",
		"SHOAL_AT":          "1970-01-01T00:00:00Z",
		"SHOAL_IMAGE_NAME":  "web:1",
		"SHOAL_STACK":       "a\nb\n",
		"SHOAL_EMPTY":       "",
	}
	if diff := cmp.Diff(want, next()); diff != "" || otherwise.Len() > 0 {
		t.Errorf("%s%s", diff, &otherwise)
	}
	log.WithGroup("peer").Error("x", "node_id", "7")
	if got := next(); got["SHOAL_PEER_NODE_ID"] != "7" || got["PRIORITY"] != "3" {
		t.Errorf("%v", got)
	}
	if got := fieldName("1 ä/b-" + strings.Repeat("c", 70)); !strings.HasPrefix(got, "SHOAL_1___B_CCC") || len(got) != 64 {
		t.Errorf("%s is no name of a field", got)
	}
}

func TestJournalTakesLongValuesAndIsFoundAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	end, next := journal(t, path)
	var otherwise bytes.Buffer
	log := slog.New(New(path, "x", slog.NewJSONHandler(&otherwise, nil)))
	log.Info("panicked", "stack", strings.Repeat("a line\n", 1<<16))
	if got := next(); len(got["SHOAL_STACK"]) != longest {
		t.Errorf("%d bytes of the stack", len(got["SHOAL_STACK"]))
	}
	// Step 1: it ends, and what is said meanwhile is not lost.
	if err := errors.Join(end(), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	log.With("part", "store").Info("nobody reads", "count", 3)
	for _, want := range []string{`"msg":"nobody reads"`, `"attributes":"part=store count=3"`, "not_in_journal"} {
		if !strings.Contains(otherwise.String(), want) {
			t.Errorf("%q is not in what was written instead: %s", want, &otherwise)
		}
	}
	// Step 2: it comes back, twice, once unnoticed.
	for _, want := range []string{"1", "2"} {
		end, next = journal(t, path)
		log.Info("again", "time", want)
		if got := next(); got["SHOAL_TIME"] != want {
			t.Errorf("%v", got)
		}
		if err := errors.Join(end(), os.Remove(path)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOnlyTheJournalsOwnStreamIsTaken(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if own := fmt.Sprintf("%d:%d", st.Dev, st.Ino); !Leads(f, own) || Leads(f, own+"0") || Leads(f, "") {
		t.Error("the stream is known by its device and inode")
	}
}
