package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/testx/chart"
)

// report is what a run has measured. It is safe for concurrent use.
type report struct {
	began  time.Time
	before string // load

	mu     sync.Mutex // guards below
	tables []*table
	notes  []string
}

// table compares sides. The first is what the ratios are of, and another one may be too.
type table struct {
	title, aim string
	second     string // empty: none
	sides      []string
	rates      map[string][]float64
	costs      map[string][]float64
}

func newReport() *report { return &report{began: time.Now(), before: load()} }

// load is the machine's (proc(5), loadavg).
func load() string {
	data, _ := os.ReadFile("/proc/loadavg")
	return strings.Join(strings.Fields(string(data) + " ? ? ?")[:3], " ")
}

func (r *report) table(title, aim string) *table {
	t := &table{title: title, aim: aim, rates: map[string][]float64{}, costs: map[string][]float64{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tables = append(r.tables, t)
	return t
}

func (r *report) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.notes, text) {
		r.notes = append(r.notes, text)
	}
}

func (t *table) add(side string, rate, cost float64) {
	if t.rates[side] == nil {
		t.sides = append(t.sides, side)
	}
	t.rates[side], t.costs[side] = append(t.rates[side], rate), append(t.costs[side], cost)
}

// print writes the tables as Markdown.
func (r *report) print(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d CPUs, load %s before and %s after, took %s\n", r.began.UTC().Format("2006-01-02 15:04"), runtime.NumCPU(), r.before, load(), time.Since(r.began).Round(time.Second))
	for _, t := range r.tables {
		fmt.Fprintf(&b, "\n%s (aim: %s)\n\n", t.title, t.aim)
		if !t.whole() {
			b.WriteString("No figures: a fault ended it.\n")
			continue
		}
		t.print(&b)
	}
	for _, n := range r.notes {
		fmt.Fprintf(&b, "\n%s\n", n)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// whole says that every side has a figure of every round; a fault may have ended the step before.
func (t *table) whole() bool {
	return len(t.sides) > 0 && (t.second == "" || t.rates[t.second] != nil) &&
		!slices.ContainsFunc(t.sides, func(side string) bool { return len(t.rates[side]) != len(t.rates[t.sides[0]]) })
}

func (t *table) print(b *strings.Builder) {
	if len(t.sides) == 1 {
		all := t.rates[t.sides[0]]
		fmt.Fprintf(b, "| n | p50 | p90 | p99 | most |\n| --- | --- | --- | --- | --- |\n| %d | %.1f | %.1f | %.1f | %.1f |\n", len(all), quantile(all, 0.5), quantile(all, 0.9), quantile(all, 0.99), quantile(all, 1))
		return
	}
	to := []string{t.sides[0]}
	if t.second != "" {
		to = append(to, t.second)
	}
	b.WriteString("| side | a second, median (least–most) |")
	for _, name := range to {
		fmt.Fprintf(b, " ratio to %s, of the same round |", name)
	}
	fmt.Fprintf(b, " CPU µs each |\n|%s\n", strings.Repeat(" --- |", 3+len(to)))
	for _, s := range t.sides {
		cost := "–"
		if c := quantile(t.costs[s], 0.5); c > 0 {
			cost = fmt.Sprintf("%.1f", c)
		}
		fmt.Fprintf(b, "| %s | %.0f (%.0f–%.0f) |", s, quantile(t.rates[s], 0.5), slices.Min(t.rates[s]), slices.Max(t.rates[s]))
		for _, name := range to {
			ratios := t.ratios(s, name)
			fmt.Fprintf(b, " %.2f (%.2f–%.2f) |", quantile(ratios, 0.5), slices.Min(ratios), slices.Max(ratios))
		}
		fmt.Fprintf(b, " %s |\n", cost)
	}
}

func (t *table) ratios(side, to string) (out []float64) {
	for i, v := range t.rates[side] {
		if i < len(t.rates[to]) {
			out = append(out, v/t.rates[to][i])
		}
	}
	return out
}

// quantile is by the nearest rank.
func quantile(all []float64, q float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// draw makes a chart of each table: the rounds of a comparison, or how many of all have come by then.
func (r *report) draw(folder string) error {
	if folder == "" {
		return nil
	}
	faults := []error{os.MkdirAll(folder, 0o755)}
	for i, t := range r.tables {
		c := chart.Chart{Title: t.title, X: "round", Y: "a second", StepX: 1}
		for _, s := range t.sides {
			line := chart.Line{Name: s}
			for j, v := range t.rates[s] {
				line.Points = append(line.Points, chart.Point{X: float64(j + 1), Y: v})
			}
			if len(t.sides) == 1 {
				c.X, c.Y, c.StepX = "ms", "percent have come", 0
				for j, v := range slices.Sorted(slices.Values(t.rates[s])) {
					line.Points[j] = chart.Point{X: v, Y: 100 * float64(j+1) / float64(len(t.rates[s]))}
				}
			}
			c.Lines = append(c.Lines, line)
		}
		faults = append(faults, os.WriteFile(filepath.Join(folder, fmt.Sprintf("%s-%d.svg", name(t.title), i+1)), c.SVG(), 0o644))
	}
	return errors.Join(faults...)
}

// name is a title's first words, for a file.
func name(title string) string {
	words, _, _ := strings.Cut(title, ":")
	words, _, _ = strings.Cut(words, ",")
	words, _, _ = strings.Cut(words, "'")
	return strings.ToLower(strings.Join(strings.Fields(words), "-"))
}
