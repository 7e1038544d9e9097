// Package units holds deploy/systemd to its promises: what a unit lets its process do, that each right has its reason
// beside it, and that every process of the repository has a unit with a user of its own.
//
// It asks systemd-analyze about the files alone, so that it needs neither systemd as process 1 nor root. It must not know
// how the units get onto a machine: that is deploy/packages. It keeps no state.
package units

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// Exposure is what systemd-analyze security says about a unit file.
type Exposure struct {
	Overall float64  // 0 is best, 10 is worst
	Open    []string // settings that add to it, as systemd writes them: "SystemCallFilter=~@mount"
}

// Analyze judges a unit file without systemd running.
func Analyze(ctx context.Context, file string) (Exposure, error) {
	var out Exposure
	text, err := security(ctx, "--json=off", file)
	if err != nil {
		return out, err
	}
	found := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(text)
	if found == nil {
		return out, fmt.Errorf("%s: systemd-analyze tells no overall exposure: %s", file, text)
	}
	if out.Overall, err = strconv.ParseFloat(string(found[1]), 64); err != nil {
		return out, err
	}
	if text, err = security(ctx, "--json=short", file); err != nil {
		return out, err
	}
	var settings []struct {
		Name     string  `json:"name"`
		Exposure *string `json:"exposure"`
	}
	if err := json.Unmarshal(text, &settings); err != nil {
		return out, fmt.Errorf("%s: %w", file, err)
	}
	for _, s := range settings {
		if s.Exposure != nil {
			out.Open = append(out.Open, s.Name)
		}
	}
	return out, nil
}

func security(ctx context.Context, format, file string) ([]byte, error) {
	c := exec.CommandContext(ctx, "systemd-analyze", "security", "--offline=yes", "--no-pager", format, file)
	text, err := c.Output()
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // it is exec's own
		return nil, fmt.Errorf("systemd-analyze security %s: %w: %s", file, err, exit.Stderr)
	}
	return text, err
}

// directive is the name before = of a setting.
func directive(setting string) string {
	name, _, _ := strings.Cut(setting, "=")
	return name
}

// settings are a unit's lines "Name=value", without comments and sections.
func settings(unit string) (lines []string) {
	for line := range strings.Lines(unit) {
		if line = strings.TrimSpace(line); strings.Contains(line, "=") && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

// comments are a unit's comments, as one text.
func comments(unit string) string {
	var out strings.Builder
	for line := range strings.Lines(unit) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "#"); ok {
			out.WriteString(text + "\n")
		}
	}
	return out.String()
}
