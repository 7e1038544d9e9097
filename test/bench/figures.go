package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/shoalproject/shoal/internal/testx/chart"
)

// draw makes a chart of each row that was taken more than once: a line for each who was measured, run by run.
func (r *report) draw(folder string) error {
	if folder == "" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	faults := []error{os.MkdirAll(folder, 0o755)} //nolint:gosec // for all to see
	for _, at := range r.Rows {
		c := chart.Chart{Title: at.Step, X: "run", Y: at.Unit, StepX: 1}
		for _, side := range []struct {
			name string
			of   *series
		}{{"shoal", at.Shoal}, {"bare containerd", at.Bare}, {"Docker Swarm", at.Swarm}} {
			if side.of == nil || len(side.of.Samples) < 2 {
				continue
			}
			line := chart.Line{Name: side.name}
			for i, v := range side.of.Samples {
				line.Points = append(line.Points, chart.Point{X: float64(i + 1), Y: v})
			}
			c.Lines = append(c.Lines, line)
		}
		if len(c.Lines) > 0 {
			faults = append(faults, os.WriteFile(filepath.Join(folder, fileName(at.Step)), c.SVG(), 0o644)) //nolint:gosec // for all to see
		}
	}
	return errors.Join(faults...)
}

// fileName is a row's, for a chart.
func fileName(step string) string {
	return strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(step), "-"), "-") + ".svg"
}
