// Package figures draws what a run of the benchmarks has measured, one chart a step.
//
// It owns the charts' files: their names and the folder. It keeps nothing.
package figures

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/shoalproject/shoal/internal/testx/chart"
)

// Side is who was measured, run by run.
type Side struct {
	Name string
	Runs []float64
}

// Draw makes the chart of a step: a line for each who was measured more than once. With none there is no chart.
func Draw(folder, step, unit string, sides ...Side) error {
	c := chart.Chart{Title: step, X: "run", Y: unit, StepX: 1}
	for _, s := range sides {
		if len(s.Runs) < 2 {
			continue
		}
		line := chart.Line{Name: s.Name}
		for i, v := range s.Runs {
			line.Points = append(line.Points, chart.Point{X: float64(i + 1), Y: v})
		}
		c.Lines = append(c.Lines, line)
	}
	if len(c.Lines) == 0 {
		return nil
	}
	return errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, fileName(step)), c.SVG(), 0o644))
}

func fileName(step string) string {
	return strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(step), "-"), "-") + ".svg"
}
