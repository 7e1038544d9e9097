// Package logpath measures how fast the agent keeps the output of one container: from its pipe to the disk, by the benchmark that
// stands beside that code.
//
// It owns what that benchmark prints. It keeps nothing, and needs no cluster.
package logpath

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// blocks is what each run writes, of some 32 KiB: long enough for a file to be full several times.
const blocks = 3000

// Rate is one run, of lines of a length. Unit: bytes, and MB/s.
type Rate struct {
	Line string
	Each float64
}

// told is a line of go test about BenchmarkKeep.
var told = regexp.MustCompile(`(?m)^BenchmarkKeep/line=(\d+)\S*\s.*?([\d.]+) MB/s`)

// Measure takes so many runs of each length, in the repository at root.
func Measure(ctx context.Context, root string, runs int) (rates []Rate, err error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkKeep$", "-benchtime", fmt.Sprintf("%dx", blocks),
		"-count", strconv.Itoa(runs), "./internal/logger")
	cmd.Dir = filepath.Join(root, "services", "agent")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test -bench Keep: %w: %s", err, out)
	}
	for _, m := range told.FindAllStringSubmatch(string(out), -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, err
		}
		rates = append(rates, Rate{m[1], v})
	}
	if len(rates) == 0 {
		return nil, fmt.Errorf("go test -bench Keep tells no figures: %s", out)
	}
	return rates, nil
}
