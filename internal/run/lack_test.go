package run_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/run"
)

// TestLackIsToldOnceAMinute, with what to do about it; what is another's fault is no lack.
func TestLackIsToldOnceAMinute(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	var l run.Lacks
	begin := time.Unix(1000, 0)
	if l.Tell(log, begin, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)) || out.Len() > 0 {
		t.Errorf("a refusal is taken for a lack: %s", out.String())
	}
	for i := range 1200 { // a minute of doors that try again 20 times a second
		at := begin.Add(time.Duration(i) * 50 * time.Millisecond)
		if !l.Tell(log, at, os.NewSyscallError("accept", syscall.EMFILE)) {
			t.Fatal("a lack of descriptors is none")
		}
	}
	if got := strings.Count(out.String(), "\n"); got != 1 || !strings.Contains(out.String(), "LimitNOFILE") {
		t.Errorf("told %d times in a minute, want once with what to do: %.400s", got, out.String())
	}
	l.Tell(log, begin.Add(time.Minute), syscall.ENFILE)
	if !strings.Contains(out.String(), "fs.file-max") {
		t.Errorf("it is not told again: %s", out.String())
	}
}
