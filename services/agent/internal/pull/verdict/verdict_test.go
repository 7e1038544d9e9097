package verdict_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/shoalproject/shoal/services/agent/internal/pull/verdict"
)

// TestScripts: `fault` tells what a failed try leads to, `progress` how far a pull is in words.
func TestScripts(t *testing.T) {
	faults := map[string]verdict.Fault{
		"other": verdict.Other, "status": verdict.Status, "stalled": verdict.Stalled, "corrupt": verdict.Corrupt,
		"unreachable": verdict.Unreachable, "full": verdict.Full, "helper": verdict.Helper, "foreign": verdict.Foreign,
	}
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "progress" {
				var done, total int64
				d.ScanArgs(t, "done", &done)
				d.ScanArgs(t, "total", &total)
				return verdict.Progress(done, total) + "\n"
			}
			e := verdict.Evidence{Fault: faults[d.Cmd], Host: "r.example", Login: d.HasArg("login"), Detail: d.Input, Stall: 30 * time.Second}
			try, after := 1, ""
			d.MaybeScanArgs(t, "try", &try)
			d.MaybeScanArgs(t, "code", &e.Code)
			d.MaybeScanArgs(t, "retry-after", &after)
			if after != "" {
				e.RetryAfter, _ = time.ParseDuration(after)
			}
			v := verdict.Of(e, try)
			if v.Final {
				return fmt.Sprintf("end: %s\n", v.Words)
			}
			return fmt.Sprintf("again in %s: %s\n", v.After, v.Words)
		})
	})
}
