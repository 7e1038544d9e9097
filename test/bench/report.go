package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/shoalproject/shoal/test/bench/figures"
)

// column says who was measured.
type column int

const (
	ours column = iota
	bareClient
	swarmPeer
)

// rate is the unit of what is better when it is big; all else are times.
const rate = "1/s"

// row is one step's figures.
type row struct {
	Step  string  `json:"step"`
	Unit  string  `json:"unit"`
	Shoal *series `json:"shoal,omitempty"`
	Bare  *series `json:"bare,omitempty"`
	Swarm *series `json:"swarm,omitempty"`
	Aim   string  `json:"aim,omitempty"`
	Why   string  `json:"why,omitempty"` // why there is no figure, or what it does not say
}

// report is what a run has measured. It is safe for concurrent use.
type report struct {
	Machine machine  `json:"machine"`
	Notes   []string `json:"notes"`

	mu   sync.Mutex // guards below
	Rows []*row     `json:"rows"`
}

// machine is where it was measured: figures of two machines can't be compared.
type machine struct {
	CPUs        int       `json:"cpus"`
	Kernel      string    `json:"kernel"`
	LoadAtStart string    `json:"load_at_start"`
	LoadAtEnd   string    `json:"load_at_end"`
	Began       time.Time `json:"began"`
	Took        string    `json:"took"`
}

func newReport() *report {
	return &report{Machine: machine{CPUs: runtime.NumCPU(), Kernel: kernel(), LoadAtStart: load(), Began: time.Now().UTC().Truncate(time.Second)}}
}

func kernel() string { return firstField("/proc/sys/kernel/osrelease", 1) }
func load() string   { return firstField("/proc/loadavg", 3) }

func firstField(path string, n int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	fields := strings.Fields(string(text))
	return strings.Join(fields[:min(n, len(fields))], " ")
}

// row finds a step's row or makes it at the end. Who measures first need not know the aim.
func (r *report) row(step, unit, aim string) *row {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, have := range r.Rows {
		if have.Step == step {
			if have.Aim == "" {
				have.Aim = aim
			}
			return have
		}
	}
	made := &row{Step: step, Unit: unit, Aim: aim}
	r.Rows = append(r.Rows, made)
	return made
}

// add puts one measurement into a step's row.
func (r *report) add(who column, step, unit, aim string, v float64) {
	at := r.row(step, unit, aim)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch who {
	case bareClient:
		at.Bare = at.Bare.add(v)
	case swarmPeer:
		at.Swarm = at.Swarm.add(v)
	default:
		at.Shoal = at.Shoal.add(v)
	}
}

// why says in a step's row why a figure is missing, or what it leaves out.
func (r *report) why(step, unit, aim, reason string) {
	at := r.row(step, unit, aim)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !strings.Contains(at.Why, reason) {
		at.Why = strings.TrimPrefix(at.Why+"; "+reason, "; ")
	}
}

// note adds a sentence about all figures, once.
func (r *report) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.Notes, text) {
		r.Notes = append(r.Notes, text)
	}
}

// end stamps the report.
func (r *report) end(began time.Time) {
	r.Machine.LoadAtEnd = load()
	r.Machine.Took = time.Since(began).Round(time.Second).String()
}

// draw makes the charts.
func (r *report) draw(folder string) error {
	if folder == "" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var faults []error
	for _, at := range r.Rows {
		faults = append(faults, figures.Draw(folder, at.Step, at.Unit,
			figures.Side{Name: "shoal", Runs: at.Shoal.runs()}, figures.Side{Name: "bare containerd", Runs: at.Bare.runs()}, figures.Side{Name: "Docker Swarm", Runs: at.Swarm.runs()}))
	}
	return errors.Join(faults...)
}

func (r *report) json(w io.Writer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

func (r *report) table(w io.Writer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.Machine
	fmt.Fprintf(w, "%d CPUs, Linux %s, load average %s at the start and %s at the end, took %s\n", m.CPUs, m.Kernel, m.LoadAtStart, m.LoadAtEnd, m.Took)
	fmt.Fprintf(w, "median (least–most) of n runs\n\n")
	out := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(out, "STEP\tUNIT\tSHOAL\tBARE CONTAINERD\tSHOAL/BARE\tDOCKER SWARM\tSHOAL BETTER BY\tAIM")
	for _, at := range r.Rows {
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", at.Step, at.Unit, at.Shoal, at.Bare,
			ratio(at.Shoal, at.Bare), at.Swarm, at.better(), orDash(at.Aim))
	}
	if err := out.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, at := range r.Rows {
		if at.Why != "" {
			fmt.Fprintf(w, "%s: %s\n", at.Step, at.Why)
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, n)
	}
	return nil
}

// runs are all of a series, in their order.
func (s *series) runs() []float64 {
	if s == nil {
		return nil
	}
	return s.Samples
}

// String is how a series stands in the table.
func (s *series) String() string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%s (%s–%s) n=%d", figure(s.Median), figure(s.Min), figure(s.Max), len(s.Samples))
}

// figure has three digits that count.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// better is how much better shoal is than Docker Swarm: below 1 it is worse.
func (r *row) better() string {
	if r.Unit == rate {
		return ratio(r.Shoal, r.Swarm)
	}
	return ratio(r.Swarm, r.Shoal)
}

func ratio(a, b *series) string {
	if a == nil || b == nil || b.Median == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f ×", a.Median/b.Median)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
