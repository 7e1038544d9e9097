package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

const (
	aimLogs = "100 MB/s"
	// blocks is what each run writes, of some 32 KiB: long enough for a file to be full several times.
	blocks = 3000
)

// linesKept is a line of go test about BenchmarkKeep.
var linesKept = regexp.MustCompile(`(?m)^BenchmarkKeep/line=(\d+)\S*\s.*?([\d.]+) MB/s`)

// logPath measures the way of one container's output to the disk, which needs no cluster.
func logPath(ctx context.Context, b *bench, _ []orchestrator) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkKeep$", "-benchtime", fmt.Sprintf("%dx", blocks),
		"-count", strconv.Itoa(b.cfg.Runs), "./internal/logger")
	cmd.Dir = filepath.Join(b.cfg.Root, "services", "agent")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go test -bench Keep: %w: %s", err, out)
	}
	found := linesKept.FindAllStringSubmatch(string(out), -1)
	if len(found) == 0 {
		return fmt.Errorf("go test -bench Keep tells no figures: %s", out)
	}
	for _, m := range found {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return err
		}
		b.report.add(ours, "log path, lines of "+m[1]+" bytes", "MB/s", aimLogs, v)
	}
	return nil
}
